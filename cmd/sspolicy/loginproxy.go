package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/secure-streams/sspolicy/runtime/apilogin"
	"github.com/secure-streams/sspolicy/runtime/tlssession"
	"github.com/secure-streams/sspolicy/runtime/transport"
)

type loginProxyCmd struct {
	Listen   string        `default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"The address to listen on (${default})."`
	Cert     string        `placeholder:"FILE" help:"Listen with TLS, with this certificate chain, PEM."`
	CertKey  string        `placeholder:"FILE" help:"The private key of --cert; the default is that file."`
	Cookie   string        `default:"MRHSession" placeholder:"NAME" help:"The session cookie of the gateway (${default})."`
	Start    string        `default:"clientless-mode: 1" placeholder:"FIELD" help:"The header field that starts a session (${default})."`
	Login    string        `default:"/my.policy" placeholder:"PATH" help:"The login page to which the gateway redirects (${default})."`
	Key      []string      `default:"address,path" placeholder:"PARTS" help:"The parts of a session's key in addition to user and password: address, path, both, or none (${default})."`
	Idle     time.Duration `default:"15m" placeholder:"15m" help:"Forget a session that is not used for this time (${default})."`
	Lifetime time.Duration `default:"8h" placeholder:"8h" help:"Forget a session after this time (${default})."`
	SOAP     bool          `name:"soap" help:"Refuse with SOAP faults."`
	Gateway  string        `arg:"" placeholder:"URL" help:"The gateway, such as https://gateway.example."`

	gateway *url.URL
	parts   apilogin.Part
	start   [2]string // name and value
}

// Help returns the description for "sspolicy login-proxy --help".
func (loginProxyCmd) Help() string {
	return "Runs in front of a gateway and keeps its session cookies for callers that use Basic authentication and keep none: one session for each user, password, address and path. Runs until Ctrl-C. Logs refusals, and answers that are not 2xx, on standard error, without secrets."
}

// Validate checks the flags.
func (c *loginProxyCmd) Validate() error {
	var err error
	if c.gateway, err = url.Parse(c.Gateway); err != nil || c.gateway.Host == "" || c.gateway.Scheme != "http" && c.gateway.Scheme != "https" {
		return fmt.Errorf("%q is not the URL of a gateway, such as https://gateway.example", c.Gateway)
	}
	for _, k := range c.Key {
		switch {
		case k == "address":
			c.parts |= apilogin.Address
		case k == "path":
			c.parts |= apilogin.Path
		case k == "none" && len(c.Key) == 1:
		default:
			return fmt.Errorf("--key must be address, path, both with a comma, or none, but is %s", strings.Join(c.Key, ","))
		}
	}
	name, value, ok := strings.Cut(c.Start, ":")
	if c.start = [2]string{name, strings.TrimSpace(value)}; !ok {
		return fmt.Errorf("--start must be a header field such as \"clientless-mode: 1\", but is %q", c.Start)
	}
	switch {
	case c.Idle <= 0:
		return fmt.Errorf("--idle must be positive, but is %v", c.Idle)
	case c.Lifetime <= 0:
		return fmt.Errorf("--lifetime must be positive, but is %v", c.Lifetime)
	case c.CertKey != "" && c.Cert == "":
		return errors.New("--cert-key needs --cert")
	}
	return nil
}

// Run executes the command.
func (c *loginProxyCmd) Run(p *program) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return c.serve(ctx, p)
}

// serve runs the proxy until ctx is done.
func (c *loginProxyCmd) serve(ctx context.Context, p *program) error {
	logger := slog.New(slog.NewTextHandler(p.stderr, nil))
	logins, err := apilogin.New(apilogin.Options{
		Cookie: c.Cookie, StartHeader: c.start[0], StartValue: c.start[1], LoginPage: c.Login,
		Key: c.parts, UserOnly: slices.Equal(c.Key, []string{"none"}), Idle: c.Idle, Lifetime: c.Lifetime,
		SOAP: c.SOAP, Logger: logger,
	})
	if err != nil {
		return &exitError{exitUsage, err}
	}
	server := &http.Server{Handler: logins.Proxy(c.gateway), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn)}
	scheme := "http"
	if c.Cert != "" {
		key := c.CertKey
		if key == "" {
			key = c.Cert
		}
		cert, err := loadKeyPair(c.Cert, key)
		if err != nil {
			return fmt.Errorf("--cert: %w", err)
		}
		scheme = "https"
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		new(tlssession.Sessions).Server(transport.Scope{}, server.TLSConfig)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return usage("--listen must be ADDRESS:PORT, such as 127.0.0.1:8080, not %q", c.Listen)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "listening on %s://%s for %s\n", scheme, ln.Addr(), c.gateway)
	served := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			served <- server.ServeTLS(ln, "", "")
		} else {
			served <- server.Serve(ln)
		}
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		return server.Close()
	}
	return nil
}
