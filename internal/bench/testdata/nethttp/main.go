// Command nethttp fetches a page with net/http.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// root stands in for a certificate.
const root = "0"

func main() {
	roots := x509.NewCertPool()
	if cert, err := x509.ParseCertificate([]byte(root)); err == nil {
		roots.AddCert(cert)
	}
	client := &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableCompression:  true,
			MaxIdleConnsPerHost: 256,
		},
	}
	for try := 0; ; try++ {
		resp, err := client.Get("https://www.example.com/page?name=" + os.Args[1])
		if err == nil {
			_, err = io.Copy(os.Stdout, resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			return
		}
		if try == 3 {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		time.Sleep(time.Second)
	}
}
