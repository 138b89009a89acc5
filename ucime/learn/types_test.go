package learn

import "testing"

func TestNumbersAreE164(t *testing.T) {
	for n, want := range map[Number]bool{
		"+14085551212": true, "+1": true, "+123456789012345": true,
		"": false, "+": false, "14085551212": false, "+1234567890123456": false, "+1408555121a": false, "+1 408": false,
	} {
		if n.Valid() != want {
			t.Errorf("%q: Valid() = %v", n, !want)
		}
	}
}

func TestPeerIDsGoToTextAndBack(t *testing.T) {
	const text = "0123456789abcdef0123456789abcdef"
	p, err := ParsePeerID(text)
	if err != nil || p.String() != text {
		t.Fatalf("%v, %v", p, err)
	}
	for _, bad := range []string{"", text[1:], text + "0", "g" + text[1:]} {
		if _, err := ParsePeerID(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
