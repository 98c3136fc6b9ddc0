package raw_test

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/raw"
)

// A connection to a mail server begins unencrypted.
func ExampleSocket_StartTLS() {
	dialogue := func(ctx context.Context, c *runtime.Context) error {
		conn, err := c.Open(ctx, "mail")
		if err != nil {
			return err
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		// ... EHLO and its response
		fmt.Fprint(conn, "STARTTLS\r\n")
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
			return fmt.Errorf("no TLS: %q %v", line, err)
		}
		if err := raw.Of(conn).StartTLS(r.Buffered()); err != nil {
			return err
		}
		_, err = fmt.Fprint(conn, "EHLO example.com\r\n") // under TLS
		return err
	}
	_ = dialogue
}
