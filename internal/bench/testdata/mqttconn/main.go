// Command mqttconn prints the messages of an MQTT topic over TLS, as mqttonly does, with a
// net.Conn.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// root stands in for a certificate.
const root = "0"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	roots := x509.NewCertPool()
	if cert, err := x509.ParseCertificate([]byte(root)); err == nil {
		roots.AddCert(cert)
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 15 * time.Second},
		Config:    &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	conn, err := d.DialContext(ctx, "tcp", "www.example.com:8883")
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	if err := request(conn, r, "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c", 2); err != nil {
		return err
	}
	if err := request(conn, r, "\x82\x06\x00\x01\x00\x01t\x00", 9); err != nil {
		return err
	}
	for {
		kind, body, err := packet(r)
		if err != nil {
			return err
		}
		if kind != 3 || len(body) < 2 {
			continue
		}
		topic := 2 + int(body[0])<<8 + int(body[1])
		if topic > len(body) {
			return errors.New("invalid message")
		}
		if _, err := os.Stdout.Write(body[topic:]); err != nil {
			return err
		}
	}
}

// request writes a packet, and reads its answer, a packet of a kind that ends with 0.
func request(w io.Writer, r *bufio.Reader, text string, answer byte) error {
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	kind, body, err := packet(r)
	if err == nil && (kind != answer || len(body) == 0 || body[len(body)-1] != 0) {
		err = errors.New("refused")
	}
	return err
}

// packet reads a packet.
func packet(r *bufio.Reader) (kind byte, body []byte, err error) {
	first, err := r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		if shift > 21 {
			return 0, nil, errors.New("invalid length")
		}
		if n |= int(b&127) << shift; b < 128 {
			break
		}
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return first >> 4, body, err
}
