package mapping

import (
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// attribute of NFT_MSG_NEWGEN (linux/netfilter/nf_tables.h).
const genID = 1

// generation is a number that each transaction of nftables in this network namespace raises, whoever makes it.
func generation() (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("nftables: %w", err)
	}
	defer conn.Close()
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN), Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, fmt.Errorf("nftables generation: %w", err)
	}
	for _, m := range answers {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, fmt.Errorf("nftables generation: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == genID {
				return ad.Uint32(), ad.Err()
			}
		}
	}
	return 0, fmt.Errorf("nftables generation: no answer")
}

// settled says that the rules of a spec are in force already, and that nobody has touched nftables since.
func (k *Kernel) settled(spec Spec) bool {
	if k.rules == nil || k.gen == 0 {
		return false
	}
	now, err := generation()
	return err == nil && now == k.gen && reflect.DeepEqual(bare(*k.rules), bare(spec))
}

// bare is a spec without what is made from it.
func bare(s Spec) Spec {
	groups := make([]AccessGroup, len(s.Groups))
	for i, g := range s.Groups {
		g.layers = nil
		groups[i] = g
	}
	s.Groups = groups
	return s
}

// amend makes a transaction of our own that leaves the rules alone, on what is in force.
func (k *Kernel) amend(work func(*nftables.Conn) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		return ErrRemoved
	}
	conn, err := connect()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	before, errBefore := generation()
	if err := work(conn); err != nil {
		k.gen = 0
		return err
	}
	after, errAfter := generation()
	if errBefore != nil || errAfter != nil || before != k.gen || after > before+1 {
		k.gen = 0 // somebody else's may be between
		return nil
	}
	k.gen = after
	return nil
}
