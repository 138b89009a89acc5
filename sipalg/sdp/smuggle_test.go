package sdp

import (
	"errors"
	"testing"
)

// What another reader takes for a session description, and this one does not, would pass with addresses and keys as they are.
func TestFindPartReadsTypesAsOthersDo(t *testing.T) {
	const body = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
	for _, kind := range []string{"application / sdp", "application/ sdp", "Application\t/SDP ; charset=utf-8"} {
		part, _, ok, err := FindPart(kind, []byte(body))
		if err != nil || !ok || string(part) != body {
			t.Errorf("%q: ok %v, error %v: the description is not found", kind, ok, err)
		}
		multi := "--b\r\nContent-Type: " + kind + "\r\n\r\n" + body + "\r\n--b--\r\n"
		if _, _, ok, err := FindPart("multipart / mixed;boundary=b", []byte(multi)); err != nil || !ok {
			t.Errorf("%q in a part: ok %v, error %v: the description is not found", kind, ok, err)
		}
	}
	for _, kind := range []string{"application/sdp x", "application/sdp, text/plain", "application sdp", "/sdp", "application/sdp/x"} {
		multi := "--b\r\nContent-Type: " + kind + "\r\n\r\n" + body + "\r\n--b--\r\n"
		if _, _, _, err := FindPart("multipart/mixed;boundary=b", []byte(multi)); !errors.Is(err, ErrMultipart) {
			t.Errorf("a part of type %q passes: %v", kind, err)
		}
	}
	for _, kind := range []string{"", "text/plain"} {
		if _, _, ok, err := FindPart(kind, []byte("hello")); err != nil || ok {
			t.Errorf("%q: ok %v, error %v", kind, ok, err)
		}
	}
}

// A reader that takes the first address of a c= line must not find another one than the last, which is checked and replaced.
func TestConnectionLineHasOneAddress(t *testing.T) {
	for _, line := range []string{"c=IN IP4 10.0.0.66 IN IP4 198.51.100.1", "c=IN IP4 10.0.0.66 IP4 198.51.100.1", "c=x IN IP4 198.51.100.1"} {
		for _, text := range []string{
			"v=0\r\n" + line + "\r\nm=audio 4000 RTP/AVP 0\r\n",
			"v=0\r\nc=IN IP4 198.51.100.1\r\nm=audio 4000 RTP/AVP 0\r\n" + line + "\r\n",
		} {
			if _, err := Parse([]byte(text)); !errors.Is(err, ErrMalformed) {
				t.Errorf("%q passes: %v", line, err)
			}
		}
	}
}
