package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/secure-streams/sspolicy"
	"github.com/secure-streams/sspolicy/internal/otlp"
	"github.com/secure-streams/sspolicy/internal/proxyconfig"
	"github.com/secure-streams/sspolicy/internal/report"
	"github.com/secure-streams/sspolicy/internal/systemd"
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
	Listen      []string `sep:"none" placeholder:"ADDRESS" help:"The address to listen on: unix:@NAME, unix:/PATH, tcp:HOST:PORT, or mux:/DEVICE[@SPEED] for a serial line (${proxy_address}). May be repeated."`
	Config      string   `placeholder:"FILE" help:"A configuration: roles and quotas of clients, TLS, metrics."`
	Overlay     []string `sep:"none" placeholder:"FRAGMENT" help:"Apply this fragment to the policy first. May be repeated."`
	Credentials string   `placeholder:"DIR" help:"A folder of credentials, in files auth.0, client_cert.0, client_key.0 and so on."`
	JSON        bool     `name:"json" help:"Log JSON, one object a line."`
	File        string   `arg:"" name:"policy" help:"The policy."`

	addresses []proxy.Address
}

// Help returns the description for "sspolicy proxy --help".
func (proxyCmd) Help() string {
	return "Executes the streams of a policy for other processes, like the proxy of lws: for programs that are built with LWS_SS_USE_SSPC, and for sspolicy run --proxy. Runs until Ctrl-C or SIGTERM; then streams may complete what they have begun, for 5 s. SIGHUP reads policy, fragments, certificates and the roles of the configuration again; if they have errors, the old ones stay in force. Credentials come from the folder, then from variables such as SSPOLICY_AUTH_0. Logs on standard error. Sockets of a service manager are used as well. Metrics and traces go to OpenTelemetry if OTEL_EXPORTER_OTLP_ENDPOINT says where."
}

// Validate checks the flags.
func (c *proxyCmd) Validate() error {
	for _, text := range c.Listen {
		a, err := proxy.ParseAddress(text)
		switch {
		case err != nil:
			return fmt.Errorf("--listen: %w", err)
		case a.TLS:
			return fmt.Errorf("--listen: %s: tls needs a certificate: use --config", a)
		case !a.Loopback():
			return fmt.Errorf("--listen: %s: other systems could use the proxy without authentication: want a loopback address, or --config", a)
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

// A proxyServer is a running proxy.
type proxyServer struct {
	c        *proxyCmd
	p        *program
	log      *slog.Logger
	config   *proxyconfig.Config // never nil
	streams  *runtime.Context
	links    *proxy.Proxy
	metrics  proxy.Metrics
	exporter *otlp.Exporter // nil if the environment requests none
	secure   []*tlsListener
	draining atomic.Bool
	served   chan error // receives the error of a socket
}

// serve runs the proxy until ctx is done. Each value of reload makes it reload the
// policy.
func (c *proxyCmd) serve(ctx context.Context, reload <-chan os.Signal, p *program) error {
	cfg, err := c.readConfig(p)
	if err != nil {
		return err
	}
	_, compiled, err := p.compileAssembled(c.File, c.Overlay, "", lint.Options{}, schema.Error)
	if err != nil {
		return err
	}
	var handler slog.Handler = slog.NewTextHandler(p.stderr, nil)
	if c.JSON {
		handler = slog.NewJSONHandler(p.stderr, nil)
	}
	s := &proxyServer{c: c, p: p, log: slog.New(handler), config: cfg, served: make(chan error, 1)}
	tokens, err := s.tokens()
	if err != nil {
		return err
	}
	jar, err := cookies.Open(cookies.Options{File: cfg.Cookies, Logger: s.log})
	if err != nil {
		return err
	}
	defer jar.Close()
	messages := smd.New(s.log)
	defer messages.Close()
	hooks, endExport, err := s.export(ctx)
	if err != nil {
		return err
	}
	defer endExport()
	s.streams, err = runtime.NewContext(compiled, runtime.Options{
		Transports: append(transports(), messages), Logger: s.log, Credentials: tokens, Cookies: jar, Hooks: hooks,
	})
	if err != nil {
		return err
	}
	defer s.streams.Close()
	if err := tokens.Bind(s.streams); err != nil {
		s.log.Debug("no tokens from a server", "err", err)
	}
	s.links = proxy.New(s.streams, proxy.Options{Logger: s.log, MaxLinks: cfg.MaxLinks, Roles: cfg.ProxyRoles()})
	s.checkRoles(cfg, compiled)
	defer s.links.Close()
	if s.exporter != nil {
		if err := s.exporter.Observe(s.links); err != nil {
			return err
		}
	}
	endMetrics, err := s.serveMetrics()
	if err != nil {
		return err
	}
	defer endMetrics()
	if err := s.listen(); err != nil {
		return err
	}
	s.notify("READY=1")
	return s.wait(ctx, reload)
}

// wait reloads until ctx is done. Then it shuts the proxy down gracefully.
func (s *proxyServer) wait(ctx context.Context, reload <-chan os.Signal) error {
	var watchdog <-chan time.Time
	if d := systemd.Watchdog(); d > 0 {
		t := time.NewTicker(d / 2)
		defer t.Stop()
		watchdog = t.C
	}
	for {
		select {
		case err := <-s.served:
			return err
		case <-watchdog:
			s.notify("WATCHDOG=1")
			continue
		case <-reload:
			s.reload()
			continue
		case <-ctx.Done():
		}
		break
	}
	s.draining.Store(true)
	s.notify("STOPPING=1")
	grace := drainGrace
	if d := time.Duration(s.config.Drain); d > 0 {
		grace = d
	}
	s.log.Info("shutting down", "links", s.links.Stats().Links)
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := s.links.Shutdown(limit); err != nil {
		s.log.Warn("streams were cut off", "after", grace)
	}
	end(s.streams, timeoutGrace)
	return nil
}

// notify notifies the service manager.
func (s *proxyServer) notify(state string) {
	if err := systemd.Notify(state); err != nil {
		s.log.Warn("the service manager was not notified", "state", state, "err", err)
	}
}

// readConfig reads the configuration, and prints its mistakes.
func (c *proxyCmd) readConfig(p *program) (*proxyconfig.Config, error) {
	if c.Config == "" {
		return new(proxyconfig.Config), nil
	}
	text, err := p.read(c.Config)
	if err != nil {
		return nil, &exitError{exitUsage, fileError(c.Config, err)}
	}
	cfg, found := proxyconfig.Parse(displayName(c.Config), text)
	if err := report.Write(p.stderr, report.FormatText, found); err != nil {
		return nil, err
	}
	if cfg == nil {
		return nil, &exitError{code: exitUsage}
	}
	return cfg, nil
}

// tokens returns the source of credentials.
func (s *proxyServer) tokens() (*oauth.Source, error) {
	chain, files := credentials.Chain{}, (*credentials.Files)(nil)
	dir := s.config.Credentials
	if s.c.Credentials != "" {
		dir = s.c.Credentials
	}
	if dir != "" {
		if err := checkCredentials(dir); err != nil {
			return nil, err
		}
		files = &credentials.Files{Dir: dir}
		for _, name := range files.Exposed() {
			s.log.Warn("other users can read a credential", "file", name)
		}
		chain = append(chain, files)
	}
	return oauth.New(append(chain, &credentials.Env{Prefix: "SSPOLICY_"}), oauth.Options{Rotated: func(_ int, request string) {
		err := errors.New("no folder of credentials to write it to")
		if files != nil {
			err = files.SetBlob(policy.BlobAuth, 1, request)
		}
		if err != nil {
			s.log.Error("the token server has replaced the refresh token, and the new one is lost", "err", err)
		}
	}}), nil
}

// listen opens all sockets, and then serves them.
func (s *proxyServer) listen() (err error) {
	all, err := systemd.Listeners()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	places := s.config.Listen
	for _, a := range s.c.addresses {
		places = append(places, proxyconfig.Listener{Address: a.String()})
	}
	if len(all)+len(places) == 0 {
		places = append(places, proxyconfig.Listener{Address: proxy.DefaultAddress})
	}
	for i := range places {
		l, err := s.open(&places[i])
		if err != nil {
			return fmt.Errorf("%s: %w", places[i].Address, err)
		}
		all = append(all, l)
		if secure, ok := l.(*tlsListener); ok {
			s.secure = append(s.secure, secure)
		}
	}
	for _, l := range all {
		s.log.Info("listening", "address", boundAddress(l))
		go func() {
			if err := s.links.Serve(l); !errors.Is(err, net.ErrClosed) {
				select {
				case s.served <- err:
				default:
				}
			}
		}()
	}
	return nil
}

// open opens a socket or a serial line.
func (s *proxyServer) open(place *proxyconfig.Listener) (net.Listener, error) {
	a, err := proxy.ParseAddress(place.Address)
	if err != nil {
		return nil, err
	}
	l, err := proxy.Listen(a, s.log)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (net.Listener, error) {
		l.Close()
		return nil, err
	}
	mode, set, uid, gid := place.Permissions()
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(a.Host, uid, gid); err != nil {
			return fail(err)
		}
	}
	if set {
		if err := os.Chmod(a.Host, mode); err != nil {
			return fail(err)
		}
	}
	if !a.TLS {
		return l, nil
	}
	secure := &tlsListener{place: *place}
	config, err := secure.load()
	if err != nil {
		return fail(err)
	}
	secure.config.Store(config)
	secure.Listener = tls.NewListener(l, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return secure.config.Load(), nil
	}})
	return secure, nil
}

// A tlsListener is a listener for TLS.
type tlsListener struct {
	net.Listener
	place  proxyconfig.Listener
	config atomic.Pointer[tls.Config] // of new connections
}

// load reads the certificates.
func (l *tlsListener) load() (*tls.Config, error) {
	cert, err := loadKeyPair(l.place.Certificate, l.place.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	if l.place.ClientCA != "" {
		text, err := readFile(l.place.ClientCA)
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", l.place.ClientCA)
		}
	}
	return config, nil
}

// boundAddress returns the address of a listener, with the port that the system chose.
func boundAddress(l net.Listener) string {
	a := proxy.Address{Network: l.Addr().Network(), Host: l.Addr().String()}
	_, a.TLS = l.(*tlsListener)
	return a.String()
}

// serveMetrics serves metrics and health, and returns a function that stops it.
func (s *proxyServer) serveMetrics() (end func(), err error) {
	if s.config.Metrics == "" {
		return func() {}, nil
	}
	a, err := proxy.ParseAddress(s.config.Metrics)
	if err != nil {
		return nil, err
	}
	l, err := proxy.Listen(a, s.log)
	if err != nil {
		return nil, fmt.Errorf("metrics: %s: %w", a, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		s.links.WriteMetrics(w, &s.metrics)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	s.log.Info("serving metrics", "address", l.Addr().Network()+":"+l.Addr().String())
	go server.Serve(l)
	return func() { server.Close() }, nil
}

// reload replaces policy, roles and certificates with the current content of the
// files, if that is valid.
func (s *proxyServer) reload() {
	begin := time.Now()
	err := s.replace()
	if err != nil {
		s.log.Error("the policy was not replaced", "file", s.c.File, "err", err)
		return
	}
	s.log.Info(s.replaced(), "file", s.c.File, "took", time.Since(begin).Round(time.Millisecond))
}

// replaced returns the message of a successful reload.
func (s *proxyServer) replaced() string {
	if s.c.Config != "" {
		return "policy, roles and certificates were replaced"
	}
	return "the policy was replaced"
}

// replace reads the files again, and replaces policy, roles and certificates.
func (s *proxyServer) replace() error {
	cfg := s.config
	if s.c.Config != "" {
		text, err := s.p.read(s.c.Config)
		if err != nil {
			return fileError(s.c.Config, err)
		}
		var found []schema.Diagnostic
		if cfg, found = proxyconfig.Parse(displayName(s.c.Config), text); cfg == nil {
			return s.complain(found)
		}
	}
	base, above, err := s.p.assemble(s.c.File, s.c.Overlay)
	if err != nil {
		return err
	}
	compiled, err := sspolicy.Compile(base, lint.Options{}, above...)
	if refused, ok := errors.AsType[*sspolicy.Error](err); ok {
		return s.complain(refused.Diagnostics)
	}
	if err != nil {
		return err
	}
	configs := make([]*tls.Config, len(s.secure))
	for i, l := range s.secure {
		if configs[i], err = l.load(); err != nil {
			return fmt.Errorf("%s: %w", l.place.Address, err)
		}
	}
	if err := s.streams.SetPolicy(compiled.Policy); err != nil {
		return err
	}
	for i, l := range s.secure {
		l.config.Store(configs[i])
	}
	s.links.SetRoles(cfg.ProxyRoles())
	s.checkRoles(cfg, compiled.Policy)
	if names := s.config.Changed(cfg); len(names) > 0 {
		s.log.Warn("settings take effect at the next start", "settings", strings.Join(names, ", "))
	}
	return nil
}

// checkRoles warns about patterns that match no streamtype of a policy.
func (s *proxyServer) checkRoles(cfg *proxyconfig.Config, compiled *policy.Policy) {
	names := []string{smd.StreamType}
	for _, st := range compiled.StreamTypes {
		names = append(names, st.Name)
	}
	for _, role := range cfg.Roles {
		for _, pattern := range role.StreamTypes {
			matches := func(name string) bool { ok, _ := path.Match(pattern, name); return ok } // patterns are valid
			if !slices.ContainsFunc(names, matches) {
				s.log.Warn("the policy has no such streamtype", "role", role.Name, "streamtype", pattern)
			}
		}
	}
}

// complain logs the errors among found.
func (s *proxyServer) complain(found []schema.Diagnostic) error {
	for _, d := range found {
		if d.Severity == schema.Error {
			s.log.Error(d.Message, "at", d.Span.String(), "rule", d.Rule)
		}
	}
	return errors.New("it has errors")
}
