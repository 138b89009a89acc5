package mapping

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// probeTable exists within one batch only: it is made and deleted before the batch ends.
const probeTable = "imeproxy_probe"

// missingFeatures tries each thing that the rules need by itself and names those that the kernel refuses.
func missingFeatures() []string {
	features := []struct {
		name string
		typ  nftables.ChainType
		hook *nftables.ChainHook
		rule match
	}{
		{"nftables (CONFIG_NF_TABLES_IPV4, module nf_tables)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, accept()},
		{"nft NAT chains (CONFIG_NFT_NAT, module nft_chain_nat)", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, accept()},
		{"nft masquerade (CONFIG_NFT_MASQ, module nft_masq)", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, match{&expr.Masq{}}},
		{"nft tproxy (CONFIG_NFT_TPROXY, module nft_tproxy)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, append(l4proto(unix.IPPROTO_TCP), tproxy(1)...)},
		{"nft socket (CONFIG_NFT_SOCKET, module nft_socket)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, socketTransparent()},
		{"nft fib (CONFIG_NFT_FIB_IPV4, module nft_fib_ipv4)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, daddrNotLocal()},
		{"nft ct (CONFIG_NFT_CT, module nft_ct)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, ctState(established)},
		{"conntrack marks (CONFIG_NF_CONNTRACK_MARK)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, ctMark()},
		{"nft limit (CONFIG_NFT_LIMIT, module nft_limit)", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, limit(1, 1)},
	}
	if _, err := connect(); err != nil {
		return []string{"the netfilter netlink family (CONFIG_NETFILTER_NETLINK)"}
	}
	var missing []string
	for _, f := range features {
		if !hasFeature(f.typ, f.hook, f.rule) {
			missing = append(missing, f.name)
		}
	}
	return missing
}

// hasFeature says whether the kernel takes a rule.
func hasFeature(typ nftables.ChainType, hook *nftables.ChainHook, rule match) bool {
	conn, err := connect()
	if err != nil {
		return false
	}
	s := replaceTable(conn, nftables.TableFamilyIPv4, probeTable)
	s.rule(s.base("probe", typ, hook, nftables.ChainPriorityFilter), rule)
	conn.DelTable(s.table)
	return conn.Flush() == nil
}

// checkCapability asks before anything is changed, so that the message names the cause and not the first refused call.
func checkCapability(capability uint, missing error) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if data[capability/32].Effective&(1<<(capability%32)) == 0 {
		return missing
	}
	return nil
}
