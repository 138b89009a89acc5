package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// keepDSCP leaves a packet the code point with which it came.
const keepDSCP = "keep"

// codePoints by name: class selectors (RFC 2474), assured forwarding (RFC 2597) and expedited forwarding (RFC 3246).
var codePoints = func() map[string]uint8 {
	m := map[string]uint8{"default": 0, "ef": 46}
	for c := range uint8(8) {
		m[fmt.Sprintf("cs%d", c)] = c << 3
	}
	for c := uint8(1); c <= 4; c++ {
		for drop := uint8(1); drop <= 3; drop++ {
			m[fmt.Sprintf("af%d%d", c, drop)] = c<<3 | drop<<1
		}
	}
	return m
}()

func dscpNames() []string {
	names := []string{keepDSCP}
	for n := range codePoints {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func checkDSCP(w string) error {
	if w = strings.ToLower(w); w == keepDSCP {
		return nil
	}
	if _, ok := codePoints[w]; ok {
		return nil
	}
	if n, err := strconv.Atoi(w); err != nil || n < 0 || n > 63 {
		return errors.New("a code point is expected: 0-63, default, ef, af11-af43, cs0-cs7, or keep")
	}
	return nil
}

// CodePoint is 0 to 63; keep tells that a packet is to keep its own.
func (d ClassDSCP) CodePoint() (value uint8, keep bool) {
	if n, ok := codePoints[d.Value]; ok {
		return n, false
	}
	n, err := strconv.ParseUint(d.Value, 10, 6)
	return uint8(n), err != nil
}

func setDSCP(p *parser, a args) {
	d := ClassDSCP{Pos: p.pos(), Media: dscpMedia(a), Value: strings.ToLower(a.Text("dscp"))}
	p.class.DSCP = slices.DeleteFunc(p.class.DSCP, func(old ClassDSCP) bool { return old.Media == d.Media })
	p.class.DSCP = append(p.class.DSCP, d)
	slices.SortFunc(p.class.DSCP, func(x, y ClassDSCP) int { return strings.Compare(x.Media, y.Media) })
}

func unsetDSCP(p *parser, a args) {
	media, value := dscpMedia(a), strings.ToLower(a.Text("dscp"))
	before := len(p.class.DSCP)
	p.class.DSCP = slices.DeleteFunc(p.class.DSCP, func(old ClassDSCP) bool {
		return old.Media == media && (value == "" || value == old.Value)
	})
	if len(p.class.DSCP) == before && value != "" {
		p.absent(a.arg("dscp").Col, "code point of the class")
	}
}

func dscpMedia(a args) string {
	if a.Has("video") {
		return "video"
	}
	return "audio"
}
