# vzkit: `make demo` shows it, `make test` checks it, `make help` lists the rest.

PREFIX   ?= /usr/local
FUZZTIME ?= 10s

export PATH := $(PATH):/usr/local/go/bin
# Programs with the race detector wait a second before they exit, to be read; ours start many of themselves.
export GORACE := atexit_sleep_ms=0

version  := $(shell git describe --always --dirty 2>/dev/null || echo dev)
ldflags  := -X github.com/vzkit/vzkit/internal/version.String=$(version)
unit      = $$(go list ./... | grep -v '^github.com/vzkit/vzkit/test\(/\|$$\)')
gotest    = go test -race -timeout 20m

.NOTPARALLEL:
.PHONY: all build install setup demo test lint docs fuzz clean help

all: build ## the same as build

build: ## static binaries of every program in bin/
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(ldflags)' -o bin/ ./cmd/...

install: build ## the programs and their manual pages below $(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/sbin
	install -m 755 bin/vz* $(DESTDIR)$(PREFIX)/sbin/
	install -d $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 docs/man/vz*.8 $(DESTDIR)$(PREFIX)/share/man/man8/

setup: ## what this machine lacks: Debian packages, a CRIU that works on its kernel
	@scripts/setup

demo: setup build ## move a running container between two hosts of a lab on this machine
	@scripts/demo

# Tests and leak check run to the end even where one of them fails. Seeds of fuzz targets run as ordinary tests.
test: setup build lint ## lint, unit and integration tests with the race detector, leak check
	@scripts/leakcheck before; status=0; \
	$(gotest) $(unit) || status=1; \
	$(gotest) -p 1 -count 1 ./test/... || status=1; \
	scripts/leakcheck after || status=1; \
	exit $$status

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change:" $$unformatted; exit 1; }
	go vet ./...
	go tool staticcheck ./...

docs: ## manual pages, from the programs' own help
	go generate ./internal/manpages

fuzz: ## every fuzz target for $(FUZZTIME)
	@scripts/fuzz $(FUZZTIME)

clean: ## remove what was built
	rm -rf bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
