# "make demo" shows what sspolicy does, "make test" checks this tree. CONTRIBUTING.md
# explains the other targets.

GO ?= go
FUZZTIME ?= 30s
BENCH ?= .
SOAK ?= 2h
CHAOS ?= 10m
SEEDS ?= 1000
PREFIX ?= /usr/local
PACKAGES := curl git openssl gcc g++ clang gcc-arm-none-eabi gcc-i686-linux-gnu cmake meson libc6-dev libwebsockets-dev nghttp2-client netcat-openbsd python3-websockets nginx-light haproxy mosquitto mosquitto-clients redis-server rabbitmq-server neovim minisign
# Optional and test-only dependencies are in separate modules.
MODULES := . internal/site internal/thirdparty runtime/tlssession/redisfarm runtime/tlssession/amqpfarm
GORELEASER := github.com/goreleaser/goreleaser/v2@v2.16.0
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
GORELEASE := golang.org/x/exp/cmd/gorelease@v0.0.0-20261113113407-e3970619a1a4
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help
help:
	@echo 'make demo      run one policy through validate, lint, overlay, compile and run'
	@echo 'make test      run all checks and tests; on Debian, as root, installs the programs they need'
	@echo 'make build     build bin/sspolicy'
	@echo 'make install   install the program, man page, completions and CMake package below PREFIX=$(PREFIX)'
	@echo 'make uninstall remove them'
	@echo 'make lint      run gofmt, go vet, staticcheck'
	@echo 'make bench     run the benchmarks (BENCH=regexp)'
	@echo 'make soak      run long tests; random streams and faults for SOAK=$(SOAK), CHAOS=$(CHAOS)'
	@echo 'make sim       run SEEDS=$(SEEDS) simulations of each protocol, or of PROTOCOL; SEED=n repeats one'
	@echo 'make arch      run the tests of codecs and tables on 386, arm and s390x (QEMU)'
	@echo 'make sim-defects  plant defects, and count the simulations that find each'
	@echo 'make browser   load the page of the example server in chromium'
	@echo 'make vscode    package the extension for VS Code, and test it with the server (needs npm)'
	@echo 'make site      write the documentation and the playground as a website, site (needs npm)'
	@echo 'make playground       build the page that checks policies in a browser, site/playground (needs npm)'
	@echo 'make playground-test  test it, and the website, in chromium'
	@echo 'make fuzz      run each fuzz target for FUZZTIME=$(FUZZTIME)'
	@echo 'make golangci, workflows, vulncheck, apidiff: checks with downloaded tools'
	@echo 'make snapshot  build the files of a release, in dist'
	@echo 'make release-test, reproducible: install and try them; compare two builds'
	@echo 'make generate  regenerate generated pages and files'
	@echo 'make update    rewrite the outputs that the tests expect'

.PHONY: demo
demo:
	$(GO) run ./cmd/sspolicy demo

.PHONY: build
build:
	$(GO) build -o bin/sspolicy ./cmd/sspolicy

# The man page, the completions and the CMake package, below SHARE.
SHARE ?= build/share
.PHONY: share
share: build
	install -d '$(SHARE)/man/man1' '$(SHARE)/bash-completion/completions' '$(SHARE)/zsh/site-functions' \
		'$(SHARE)/fish/vendor_completions.d' '$(SHARE)/cmake/sspolicy'
	bin/sspolicy man >'$(SHARE)/man/man1/sspolicy.1'
	bin/sspolicy completion bash >'$(SHARE)/bash-completion/completions/sspolicy'
	bin/sspolicy completion zsh >'$(SHARE)/zsh/site-functions/_sspolicy'
	bin/sspolicy completion fish >'$(SHARE)/fish/vendor_completions.d/sspolicy.fish'
	install -m 644 cmake/*.cmake '$(SHARE)/cmake/sspolicy'

.PHONY: install
install:
	$(MAKE) share SHARE='$(DESTDIR)$(PREFIX)/share'
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install bin/sspolicy '$(DESTDIR)$(PREFIX)/bin'

.PHONY: uninstall
uninstall:
	cd '$(DESTDIR)$(PREFIX)' && rm -f bin/sspolicy share/man/man1/sspolicy.1 \
		share/bash-completion/completions/sspolicy share/zsh/site-functions/_sspolicy \
		share/fish/vendor_completions.d/sspolicy.fish share/cmake/sspolicy/*.cmake
	-rmdir '$(DESTDIR)$(PREFIX)/share/cmake/sspolicy'

# By default, a program built with the race detector sleeps for a second before it exits.
test soak: export GORACE ?= atexit_sleep_ms=0

.PHONY: test
test: need lint
	@set -e; for m in $(MODULES); do $(GO) test -C $$m -race ./...; done
	@$(GO) test -C internal/site -count=1 ./... # its input includes files outside of its module, which the test cache ignores

# The space in MB that a run needs in an empty build cache and in TMPDIR, with a margin. The
# check is skipped where df does not report the free space.
CACHE_MB ?= 6000
TMP_MB ?= 2000

# The tests compile generated C, some of it with lws's headers, and the race detector
# needs a C compiler. The runtime is tested against nginx, haproxy, mosquitto, openssl,
# Redis and RabbitMQ, the language server with Neovim. RUNLEVEL=1 keeps apt from starting the servers.
.PHONY: need
need:
	@if ! command -v $(GO) >/dev/null; then \
		echo 'make: go is missing: install Go 1.26 or later' >&2; exit 1; \
	fi
	@cache=$$($(GO) env GOCACHE); tmp=$${TMPDIR:-/tmp}; case $$cache in /*) mkdir -p "$$cache";; esac; \
	column() { df -Pm "$$2" 2>/dev/null | awk -v n="$$1" 'NR == 2 { print $$n }'; }; \
	check() { \
		free=$$(column 4 "$$2"); missing=$$(($$3 - $${free:-$$3})); [ $$missing -le 0 ] || { \
			echo "make: the tests need $$3 MB of disk space for $$1, and $$missing MB are missing on the disk of $$2: free them (go clean -cache), or set GOCACHE or TMPDIR to a folder on another disk; CACHE_MB=0 TMP_MB=0 skips the check" >&2; exit 1; }; \
	}; \
	if [ "$$(column 1 "$$cache")" = "$$(column 1 "$$tmp")" ]; then \
		check 'GOCACHE and TMPDIR' "$$cache" $$(($(CACHE_MB) + $(TMP_MB))); \
	else \
		check GOCACHE "$$cache" $(CACHE_MB); check TMPDIR "$$tmp" $(TMP_MB); \
	fi
	@if ! { echo '#include <stdio.h>'; echo '#include <libwebsockets.h>'; } | gcc -E - >/dev/null 2>&1 || \
	  ! /usr/bin/python3 -c 'import websockets' 2>/dev/null || \
	  ! (PATH=$$PATH:/usr/sbin; for p in curl git openssl g++ clang clang++ arm-none-eabi-gcc i686-linux-gnu-gcc cmake meson ninja nginx haproxy mosquitto mosquitto_pub nghttp h2load nc redis-server rabbitmq-server nvim minisign; do command -v $$p >/dev/null || exit 1; done); then \
		if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
			echo 'make: the tests need programs that are missing (Debian: apt install $(PACKAGES))' >&2; exit 1; \
		fi; \
		apt-get update -q && \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(PACKAGES); \
	fi

# Tests the packages that read and write binary formats, generated tables and signatures
# with other sizes of int and the other byte order. QEMU (Debian: qemu-user) runs foreign
# binaries, but not the programs that some tests build.
CODECS := ./runtime/signing ./internal/sspcwire ./runtime/policy ./runtime/internal/machine ./runtime/mqtt
.PHONY: arch
arch:
	GOARCH=386 CGO_ENABLED=0 $(GO) test ./runtime ./codegen $(CODECS)
	set -e; for a in arm s390x; do \
		GOARCH=$$a CGO_ENABLED=0 $(GO) test -exec qemu-$$a $(CODECS); \
		GOARCH=$$a CGO_ENABLED=0 $(GO) test -exec qemu-$$a -run 'Golden|Hostile|ReadELF' ./codegen; \
	done

.PHONY: lint
lint:
	@files=$$(gofmt -l .) || exit 1; if [ -n "$$files" ]; then \
		echo "not formatted by gofmt:" >&2; echo "$$files" >&2; exit 1; \
	fi
	@set -e; for m in $(MODULES); do \
		$(GO) vet -C $$m ./...; \
		GOOS=windows $(GO) vet -C $$m ./...; \
		GOOS=darwin $(GO) vet -C $$m ./...; \
		$(GO) run -C $$m $(STATICCHECK) ./...; \
	done
	GOOS=js GOARCH=wasm $(GO) vet ./internal/playground/...

.PHONY: bench
bench:
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

# "make test" runs TestChaos and TestSoakServers for 5 s, and TestSoak for 20 s. The tests
# of footprints and images need compilers for RISC-V, Xtensa and AArch64: gcc-riscv64-unknown-elf,
# gcc-xtensa-lx106 and gcc-aarch64-linux-gnu.
.PHONY: soak
soak: browser
	AGREEMENT=50000 $(GO) test -count=1 -timeout 0 -run '^TestAgreement$$' .
	LSPFUZZ=10m $(GO) test -race -count=1 -timeout 0 -v -run '^TestSessions$$' ./internal/lsp
	DELETIONS=100000 $(GO) test -count=1 -timeout 0 -run '^TestDeletions$$' ./schema ./lint
	CROSS=1 $(GO) test -count=1 -timeout 0 -run '^Test(CFootprint|ReadELF)$$' ./codegen
	CHAOS=$(CHAOS) $(GO) test -race -count=1 -timeout 0 -v -run '^TestChaos$$' ./internal/conformance
	TIMING=20s USERS=1000000 $(GO) test -count=1 -timeout 0 -v -run '^(TestKeyTiming|TestAttackManyKeysMemory)$$' ./runtime/apilogin
	KILLS=10000 nice $(GO) test -count=1 -parallel 4 -timeout 0 -v -run '^TestKill$$' ./runtime/system
	IDLE=9900 $(GO) test -count=1 -v -run '^TestIdleConnections$$' ./runtime/http
	SOAK=$(SOAK) $(GO) test -race -count=1 -timeout 0 -v -run '^TestSoak(Servers)?$$' ./internal/conformance

# EVENTS=n,n,... keeps only these events of the plan of a seed, TRACE=1 prints the trace,
# MINUTES=n is the time with faults, STOP=n stops after n seeds with findings.
.PHONY: sim
sim:
	SEEDS='$(SEEDS)' SEED='$(SEED)' PROTOCOL='$(PROTOCOL)' $(GO) test -count=1 -timeout 0 -v -run '^TestSim$$' ./internal/sim

# Plants the defects of internal/sim whose names match DEFECTS, and counts the seeds until
# the simulation finds each. Fails if a defect is neither found nor listed as missed.
.PHONY: sim-defects
sim-defects:
	DEFECTS='$(or $(DEFECTS),.)' $(GO) test -count=1 -timeout 0 -v -run '^TestDefects$$' ./internal/sim

# Needs chromium.
.PHONY: browser
browser:
	$(GO) test -count=1 -tags browser -run Browser ./runtime/example/... ./runtime/apilogin

# Any web server can serve the page in site/playground. It needs no network after loading.
# DOCS is the address of the documentation relative to the page.
.PHONY: playground
playground: playground/node_modules
	GO='$(GO)' node playground/build.mjs site/playground

playground/node_modules: playground/package-lock.json
	npm --prefix playground ci --no-audit --no-fund --ignore-scripts
	touch $@

.PHONY: site
site:
	$(MAKE) playground DOCS=../
	$(GO) run -C internal/site . ../.. ../../site

# The extension for VS Code, tested with the server. Needs npm. With CODE_SERVER, the entry.js
# of code-server, also tests it in VS Code, in chromium.
.PHONY: vscode
vscode: build editors/vscode/node_modules
	npm --prefix editors/vscode run package
	SSPOLICY='$(CURDIR)/bin/sspolicy' npm --prefix editors/vscode test
	$(if $(CODE_SERVER),SSPOLICY='$(CURDIR)/bin/sspolicy' CODE_SERVER='$(CODE_SERVER)' npm --prefix editors/vscode run test:vscode)

editors/vscode/node_modules: editors/vscode/package-lock.json
	npm --prefix editors/vscode ci --no-audit --no-fund --ignore-scripts
	touch $@

# Needs chromium. "make test" tests the same functions without a browser, in
# internal/playground.
.PHONY: playground-test
playground-test: site
	node playground/test/playground.test.mjs
	node playground/test/site.test.mjs

# go test fuzzes one target at a time.
.PHONY: fuzz
fuzz:
	@set -e; for p in $$($(GO) list ./...); do \
		targets=$$($(GO) test -list '^Fuzz' $$p); \
		for f in $$(echo "$$targets" | grep '^Fuzz'); do \
			echo "== $$p $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; \
		done; \
	done

.PHONY: generate
generate:
	$(GO) generate ./...

.PHONY: update
update:
	$(GO) test ./cmd/sspolicy -run 'Stories|Docs' -update
	$(GO) test ./codegen -run Golden -update

# Checks that need the network or a long time. apidiff compares the Go API with the tag BASE.
.PHONY: golangci
golangci:
	$(GO) run $(GOLANGCI) run

.PHONY: workflows
workflows:
	$(GO) run $(ACTIONLINT)

.PHONY: vulncheck
vulncheck:
	@set -e; for m in $(MODULES); do $(GO) run -C $$m $(GOVULNCHECK) ./...; done

BASE ?= $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)
.PHONY: apidiff
apidiff:
	$(if $(BASE),$(GO) run $(GORELEASE) -base=$(BASE),@echo 'apidiff: no tag to compare with')

# The files of a release, in dist. TARGETS=linux_amd64_v1 builds only some of them.
TOOLS ?= $(CURDIR)/build/tools
.PHONY: snapshot
snapshot: $(TOOLS)/goreleaser $(TOOLS)/cyclonedx-gomod
	mkdir -p build
	sed '$(if $(TARGETS),s/^    targets: .*/    targets: [$(TARGETS)]/)' .goreleaser.yaml >build/goreleaser.yaml
	PATH='$(TOOLS)':"$$PATH" goreleaser release --config build/goreleaser.yaml \
		--snapshot --clean --skip=docker$(if $(TARGETS),$(comma)homebrew$(comma)scoop)
comma := ,

# For the release workflow: publishes the tag of HEAD as a draft.
.PHONY: release
release: $(TOOLS)/goreleaser $(TOOLS)/cyclonedx-gomod
	PATH='$(TOOLS)':"$$PATH" goreleaser release --clean

$(TOOLS)/goreleaser:
	GOBIN='$(TOOLS)' $(GO) install $(GORELEASER)
$(TOOLS)/cyclonedx-gomod:
	GOBIN='$(TOOLS)' $(GO) install $(CYCLONEDX)

# release-test and reproducible build HEAD in clones: the Go command does not find the commit
# of a linked work tree.
.PHONY: release-test
release-test: $(TOOLS)/goreleaser $(TOOLS)/cyclonedx-gomod
	@set -ex; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	git clone -q . "$$dir/sspolicy"; \
	$(MAKE) -C "$$dir/sspolicy" snapshot TOOLS='$(TOOLS)' TARGETS='$(TARGETS)'; \
	$(GO) test -C "$$dir/sspolicy" -tags release -count=1 -timeout 60m -v ./internal/release

# The second build uses another folder, another module cache and an empty build cache.
.PHONY: reproducible
reproducible: $(TOOLS)/goreleaser $(TOOLS)/cyclonedx-gomod
	@set -ex; dir=$$(mktemp -d); trap 'chmod -R u+w "$$dir"; rm -rf "$$dir"' EXIT; \
	mkdir "$$dir/elsewhere"; \
	git clone -q . "$$dir/one"; \
	git clone -q . "$$dir/elsewhere/two"; \
	$(MAKE) -C "$$dir/one" snapshot TOOLS='$(TOOLS)' TARGETS='$(TARGETS)'; \
	GOPROXY="file://$$($(GO) env GOMODCACHE)/cache/download" GONOSUMDB='*' GOPATH="$$dir/gopath" GOCACHE="$$dir/cache" \
		$(MAKE) -C "$$dir/elsewhere/two" snapshot TOOLS='$(TOOLS)' TARGETS='$(TARGETS)'; \
	cat "$$dir"/one/dist/*_checksums.txt; \
	cmp "$$dir"/one/dist/*_checksums.txt "$$dir"/elsewhere/two/dist/*_checksums.txt; \
	echo 'both builds are identical'
