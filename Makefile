# Everything that is done with this repository. `make help` lists it.

GO      ?= go
TOOL    := $(GO) tool -modfile=tools/go.mod
COMMIT  ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
VERSION := $(shell sed -n 's/^\tversion = "\(.*\)"/\1/p' cmd/imeproxy/main.go)
EPOCH   := $(shell git log -1 --format=%ct 2>/dev/null || echo 1767225600)

# Debian packages: what builds, what the lab is made of.
DEPS_BUILD := gcc libc6-dev libsrtp2-dev
# What the tests attack with.
DEPS_TEST  := nmap sipvicious hping3 curl cpio dosfstools fdisk mtools
# What the appliance's image is made with.
DEPS_IMAGE := e2fsprogs grub-common qemu-utils zstd
DEPS_VM    := qemu-system-x86 ovmf seabios iproute2 mtools nmap e2fsprogs mmdebstrap xorriso
DEPS_LAB   := iproute2 iputils-ping conntrack nftables ethtool openssl openssh-client util-linux systemd baresip-core kamailio kamailio-tls-modules \
              rtpengine-daemon sip-tester tshark linphone-cli sox

# A number of inputs, not a time: Go up to 1.26 may report the end of a time as a failure without an input (go.dev/issue/75804).
FUZZTIME ?= 200000x
# the default of a minute is spent on every new input that is long, and nothing is tried meanwhile
MINIMIZETIME ?= 2s

MEDIA_ROUNDS ?= 5

.PHONY: help build deb image test-image install test deps deps-lab deps-image deps-vm lint demo demo-clean bench bench-media fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## bin/imeproxy
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.commit=$(COMMIT)' -o bin/imeproxy ./cmd/imeproxy

deb: build ## build/deb/imeproxy_VERSION_ARCH.deb
	@GO=$(GO) image/deb/build

image: deps-image ## the appliance's disk, for virtual machines: build/image
	$(GO) run ./image/build -version $(VERSION) -commit $(COMMIT) -epoch $(EPOCH)
	@ls -sh build/image

# The machine's cards end in network namespaces of the test's own; for calls these are the lab's.
# What the image is upgraded to is another build, one whose kernel finds no first process, and one whose service is never ready. The package is
# tried on a Debian with systemd, of which a tree with a time server is left over.
test-image: image build deps-vm deps-lab ## boot it under emulation, as root: some fifteen minutes
	$(GO) run ./image/build -version $(VERSION) -commit next -epoch $(EPOCH) -out build/image-next -formats ''
	$(GO) run ./image/build -version $(VERSION) -commit broken -epoch $(EPOCH) -out build/image-broken -formats '' -append rdinit=/none
	$(GO) run ./image/build -version $(VERSION) -commit mute -epoch $(EPOCH) -out build/image-mute -formats '' \
		-service ./image/testdata/mute -append imeproxy.healthy-within=30s
	[ -e build/debian/root.ext4 ] || image/testdata/debian build/debian
	$(GO) test -c -o build/image.test ./image
	cd image && unshare -nm ../build/image.test -test.run '^TestMachine' -test.v -test.timeout 20m -vm ../build/image/imeproxy.raw \
		-vm-next ../build/image-next/imeproxy.upgrade -vm-broken ../build/image-broken/imeproxy.upgrade -vm-mute ../build/image-mute/imeproxy.upgrade \
		-vm-debian ../build/debian

install: build ## the binary, its user and its systemd service, as root; DESTDIR is honoured
	install -D -m 755 bin/imeproxy $(DESTDIR)/usr/local/bin/imeproxy
	install -D -m 644 image/imeproxy.service $(DESTDIR)/etc/systemd/system/imeproxy.service
	install -D -m 644 docs/imeproxy-shell.1 $(DESTDIR)/usr/local/share/man/man1/imeproxy-shell.1
	install -d -m 750 $(DESTDIR)/etc/imeproxy
	@if [ -z "$(DESTDIR)" ]; then set -e; \
		getent passwd imeproxy >/dev/null || useradd --system --user-group --home-dir /var/lib/imeproxy --shell /usr/sbin/nologin imeproxy; \
		chown imeproxy:imeproxy /etc/imeproxy; install -d -m 700 -o imeproxy -g imeproxy /var/lib/imeproxy; \
		if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi; \
	fi

# Two packages at a time and a generous limit: the lab's scenarios keep two
# cores busy, and they run beside the unit tests of the other packages.
test: deps lint build ## lint, all tests with the race detector, the lab's scenarios included; last, what was skipped
	$(GO) build -o bin/results ./testbed/results
	GO=$(GO) bin/results -race -p 2 -timeout 25m ./...

lint: ## gofumpt, go vet, staticcheck
	@out=$$($(TOOL) gofumpt -l . 2>&1); if [ -n "$$out" ]; then echo "gofumpt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

demo: deps-lab build ## two enterprises with real phones call each other; KEEP=1 leaves them standing
	$(GO) run ./testbed/demo $(if $(filter-out 0,$(KEEP)),-keep)

demo-clean: ## remove a demo that was left standing
	$(GO) run ./testbed/demo -clean

bench: deps build ## calls beside Kamailio, ordinary traffic beside a plain router, mappings a second
	$(GO) run ./testbed/bench
	$(GO) test ./testbed -run '^$$' -bench '^Benchmark(Forwarding|MappingService)$$' -benchtime 1x -timeout 20m

bench-media: deps build ## packets: CPU, delay and rate beside rtpengine; MEDIA_ROUNDS=5, some 12 s each
	$(GO) test ./testbed -run '^$$' -bench '^BenchmarkMedia$$' -benchtime 1x -timeout 60m -media-rounds $(MEDIA_ROUNDS) -v

fuzz: ## every fuzz target with FUZZTIME inputs
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime $(MINIMIZETIME) $$pkg; \
		done; \
	done

deps: DEPS := $(DEPS_BUILD) $(DEPS_LAB) $(DEPS_TEST)
deps-lab: DEPS := $(DEPS_LAB)
deps-image: DEPS := $(DEPS_IMAGE)
deps-vm: DEPS := $(DEPS_VM)
deps deps-lab deps-image deps-vm: ## the Debian packages that are missing
	@missing=""; for p in $(DEPS); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q '^install ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		sudo=""; if [ "$$(id -u)" != 0 ]; then sudo="sudo env"; else sudo="env"; fi; \
		$$sudo DEBIAN_FRONTEND=noninteractive apt-get update -qq && \
		$$sudo DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

clean: ## what was built; the key that signs upgrades stays, or appliances in service would take none any more
	rm -rf bin
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 ! -name keys -exec rm -rf {} +; fi
