package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/secure-streams/sspolicy/lint"
	"github.com/secure-streams/sspolicy/proxy"
	"github.com/secure-streams/sspolicy/runtime"
	"github.com/secure-streams/sspolicy/runtime/cookies"
	"github.com/secure-streams/sspolicy/runtime/credentials"
	"github.com/secure-streams/sspolicy/runtime/oauth"
	"github.com/secure-streams/sspolicy/runtime/policy"
	"github.com/secure-streams/sspolicy/runtime/smd"
	"github.com/secure-streams/sspolicy/schema"
)

type proxyCmd struct {
	Listen      []string `sep:"none" placeholder:"ADDRESS" help:"Where to listen: unix:@NAME, unix:/PATH or tcp:HOST:PORT (${proxy_address}). May be repeated."`
	Overlay     []string `sep:"none" placeholder:"FRAGMENT" help:"Lay this fragment over the policy first. May be repeated."`
	Credentials string   `placeholder:"DIR" help:"A folder of credentials, in files auth.0, client_cert.0, client_key.0 and so on."`
	JSON        bool     `name:"json" help:"Log JSON, one object a line."`
	File        string   `arg:"" help:"The policy."`

	addresses []proxy.Address
}

// Help is what "sspolicy proxy --help" adds.
func (proxyCmd) Help() string {
	return "Fulfils the streams of a policy for other processes, like the proxy of lws: for programs that are built with LWS_SS_USE_SSPC, and for sspolicy run --proxy. Runs until Ctrl-C or SIGTERM; then streams may complete what they have begun, for 5 s. SIGHUP reads policy and fragments again; if they have errors, the old ones stay in force. Credentials come from the folder, then from variables such as SSPOLICY_AUTH_0. Logs on standard error."
}

// Validate checks the flags.
func (c *proxyCmd) Validate() error {
	for _, text := range c.Listen {
		a, err := proxy.ParseAddress(text)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		if !a.Loopback() {
			return fmt.Errorf("--listen: %s: other systems could use the proxy without authentication; want a loopback address", a)
		}
		c.addresses = append(c.addresses, a)
	}
	return nil
}

// Run executes the command.
func (c *proxyCmd) Run(p *program) error {
	hup := make(chan os.Signal, 1)
	notifyReload(hup)
	defer signal.Stop(hup)
	ctx, stop := interrupted()
	defer stop()
	return c.serve(ctx, hup, p)
}

// serve runs the proxy until ctx is done. Each value of reload makes it read the policy
// again.
func (c *proxyCmd) serve(ctx context.Context, reload <-chan os.Signal, p *program) error {
	_, compiled, err := p.compile(c.File, c.Overlay, "", lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	var handler slog.Handler = slog.NewTextHandler(p.stderr, nil)
	if c.JSON {
		handler = slog.NewJSONHandler(p.stderr, nil)
	}
	log := slog.New(handler)
	tokens := c.tokens(log)
	jar, err := cookies.Open(cookies.Options{Logger: log})
	if err != nil {
		return err
	}
	defer jar.Close()
	messages := smd.New(log)
	defer messages.Close()
	streams, err := runtime.NewContext(compiled, runtime.Options{
		Transports: append(transports(), messages), Logger: log, Credentials: tokens, Cookies: jar,
	})
	if err != nil {
		return err
	}
	defer streams.Close()
	if err := tokens.Bind(streams); err != nil {
		log.Debug("no tokens from a server", "err", err)
	}
	links := proxy.New(streams, proxy.Options{Logger: log})
	defer links.Close()
	served, err := c.listen(links, log)
	if err != nil {
		return err
	}
	for {
		select {
		case err := <-served:
			return err
		case <-reload:
			c.reload(p, streams, log)
			continue
		case <-ctx.Done():
		}
		break
	}
	log.Info("shutting down")
	limit, cancel := context.WithTimeout(context.Background(), drainGrace)
	defer cancel()
	if err := links.Shutdown(limit); err != nil {
		log.Warn("streams were cut off", "after", drainGrace)
	}
	end(streams, timeoutGrace)
	return nil
}

// tokens returns the source of credentials.
func (c *proxyCmd) tokens(log *slog.Logger) *oauth.Source {
	chain, files := credentials.Chain{}, (*credentials.Files)(nil)
	if c.Credentials != "" {
		files = &credentials.Files{Dir: c.Credentials}
		for _, name := range files.Exposed() {
			log.Warn("others may read a secret", "file", name)
		}
		chain = append(chain, files)
	}
	return oauth.New(append(chain, &credentials.Env{Prefix: "SSPOLICY_"}), oauth.Options{Rotated: func(_ int, request string) {
		err := errors.New("there is no folder of credentials")
		if files != nil {
			err = files.SetBlob(policy.BlobAuth, 1, request)
		}
		if err != nil {
			log.Error("the token server has replaced the refresh token, and the new one is lost", "err", err)
		}
	}})
}

// listen opens all sockets, and then serves them. The channel gets the error of one.
func (c *proxyCmd) listen(links *proxy.Proxy, log *slog.Logger) (<-chan error, error) {
	addresses := c.addresses
	if len(addresses) == 0 {
		a, err := proxy.ParseAddress(proxy.DefaultAddress)
		if err != nil {
			return nil, err
		}
		addresses = []proxy.Address{a}
	}
	var all []net.Listener
	for _, a := range addresses {
		l, err := proxy.Listen(a)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, fmt.Errorf("%s: %w", a, err)
		}
		all = append(all, l)
	}
	served := make(chan error, len(all))
	for _, l := range all {
		log.Info("listening", "address", l.Addr().Network()+":"+l.Addr().String())
		go func() {
			if err := links.Serve(l); !errors.Is(err, net.ErrClosed) {
				served <- err
			}
		}()
	}
	return served, nil
}

// reload replaces the policy with what the files say now, if that is good.
func (c *proxyCmd) reload(p *program, streams *runtime.Context, log *slog.Logger) {
	begin := time.Now()
	_, compiled, err := p.compile(c.File, c.Overlay, "", lint.Options{}, schema.Error)
	if err == nil {
		err = streams.SetPolicy(compiled)
	}
	if err != nil {
		log.Error("the policy was not replaced", "file", c.File, "err", err)
		return
	}
	log.Info("the policy was replaced", "file", c.File, "took", time.Since(begin).Round(time.Millisecond))
}
