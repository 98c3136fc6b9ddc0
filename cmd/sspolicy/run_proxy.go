package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/sspc"
)

// proxyFlags are the flags of run for a streamtype that a proxy executes.
type proxyFlags struct {
	Proxy       string `group:"Proxies" placeholder:"ADDRESS" help:"Use a Secure Streams proxy, which has the policy: unix:@NAME, unix:/PATH, tcp:HOST:PORT, tls:HOST:PORT or mux:/DEVICE[@SPEED]."`
	ProxyCA     string `group:"Proxies" name:"proxy-ca" placeholder:"FILE" help:"Trust these certificates (PEM) for a tls: proxy. The default is those of the operating system."`
	ProxyCert   string `group:"Proxies" placeholder:"FILE" help:"The client certificate (PEM) for a tls: proxy."`
	ProxyKey    string `group:"Proxies" placeholder:"FILE" help:"The key of the client certificate (PEM)."`
	ProxySOCKS5 string `group:"Proxies" name:"proxy-socks5" placeholder:"[USER:PASSWORD@]HOST[:PORT]" help:"Connect to a tcp: or tls: proxy through this SOCKS5 proxy."`
}

// checkProxy checks the flags and arguments of a run with or without a proxy.
func (c *runCmd) checkProxy() error {
	if c.Proxy == "" {
		switch {
		case c.ProxyCA != "" || c.ProxyCert != "" || c.ProxyKey != "" || c.ProxySOCKS5 != "":
			return errors.New("--proxy-ca, --proxy-cert, --proxy-key and --proxy-socks5 need --proxy")
		case c.File == "":
			return errors.New(`expected "<file>"`)
		case c.StreamType == "":
			return errors.New(`expected "<streamtype>"`)
		}
		return nil
	}
	if c.File == "" {
		return errors.New(`expected "<streamtype>": with --proxy there is no policy`)
	}
	if c.StreamType != "" {
		return fmt.Errorf("--proxy: there is no policy, so give the streamtype alone, not %q and %q", c.File, c.StreamType)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"--overlay", len(c.Overlay) > 0}, {"--credential", len(c.Credential) > 0}, {"--credentials", c.Credentials != ""},
		{"--cookies", c.Cookies != ""}, {c.serveFlags.used(), c.serveFlags.used() != ""},
	} {
		if f.set {
			return fmt.Errorf("%s cannot be used with --proxy: the proxy decides it", f.name)
		}
	}
	if (c.ProxyCert == "") != (c.ProxyKey == "") {
		return errors.New("--proxy-cert and --proxy-key must be used together")
	}
	return nil
}

// runProxied executes the command with a proxy.
func (c *runCmd) runProxied(p *program) error {
	st := &policy.StreamType{Name: c.File, Protocol: policy.ProtocolProxied}
	options, err := c.proxyOptions()
	if err != nil {
		return err
	}
	proxy, err := sspc.New(c.Proxy, options)
	if err != nil {
		return usage("--proxy: %s", plain(err))
	}
	var messages map[string][]byte
	if c.Data != nil {
		data, err := c.text(p, "--data", *c.Data)
		if err != nil {
			return err
		}
		messages = map[string][]byte{st.Name: data}
	}
	for name, text := range c.Part {
		if messages == nil {
			return usage("--part needs --data")
		}
		if messages[name], err = c.text(p, "--part", text); err != nil {
			return err
		}
	}
	out := &events{w: p.stderr, json: c.JSON, stream: st.Name, start: time.Now()}
	ctx, err := runtime.NewContext(nil, runtime.Options{Proxy: proxy, Logger: out})
	if err != nil {
		return err
	}
	defer ctx.Close()
	interrupt, stop := interrupted()
	defer stop()
	e := newExecution(st, c, messages, out, p.stdout)
	if _, err := ctx.NewStream(st.Name, e.handlers()); err != nil && !errors.Is(err, runtime.ErrRefused) { // e has the reason
		return usage("%s", plain(err))
	}
	return c.result(e, c.wait(ctx, e, interrupt.Done()))
}

// proxyOptions returns the options for connecting to the proxy.
func (c *runCmd) proxyOptions() (sspc.Options, error) {
	o := sspc.Options{SOCKS5: c.ProxySOCKS5}
	if c.ProxyCA == "" && c.ProxyCert == "" {
		return o, nil
	}
	o.TLS = new(tls.Config)
	if c.ProxyCA != "" {
		text, err := readFile(c.ProxyCA)
		if err != nil {
			return o, fileError(c.ProxyCA, err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(text) {
			return o, usage("--proxy-ca: %s has no certificate in PEM", c.ProxyCA)
		}
	}
	if c.ProxyCert != "" {
		cert, err := loadKeyPair(c.ProxyCert, c.ProxyKey)
		if err != nil {
			return o, usage("--proxy-cert, --proxy-key: %v", err)
		}
		o.TLS.Certificates = []tls.Certificate{cert}
	}
	return o, nil
}
