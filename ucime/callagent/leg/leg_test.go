package leg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func origin(t *testing.T, body []byte) (id, version string) {
	t.Helper()
	for line := range strings.Lines(string(body)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "o=") && len(f) == 6 {
			return f[1], f[2]
		}
	}
	t.Fatalf("no o= line in %s", body)
	return "", ""
}

// answered waits for an answer above 100.
func answered(t *testing.T, tx *sip.ClientTx) *sip.Response {
	t.Helper()
	for {
		if res := take(t, tx.Responses(), "an answer"); res.StatusCode > 100 {
			return res
		}
	}
}

// A dialog from its INVITE to its BYE: tags, targets, sequence numbers, one session description that only grows.
func TestADialog(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			_, b, atA, atB, l := pair(t, transport)
			out, err := l.Invite(context.Background(), sdp(7, 4000), "", Extra{{"X-Test", "yes"}})
			if err != nil {
				t.Fatal(err)
			}
			inv := take(t, atB, "the INVITE")
			if v := inv.req.GetHeader("X-Test"); v == nil || v.Value() != "yes" || inv.req.From().DisplayName != "Alice" || inv.req.Recipient.User != "bob" {
				t.Errorf("%s", inv.req)
			}
			far := b.Called(inv.req)
			if err := far.Respond(inv.req, inv.tx, 180, "Ringing", nil, "", nil); err != nil {
				t.Fatal(err)
			}
			ringing := answered(t, out.Tx)
			if tag, _ := ringing.To().Params.Get("tag"); ringing.StatusCode != 180 || tag != far.LocalTag() {
				t.Errorf("%s", ringing)
			}
			if err := far.Respond(inv.req, inv.tx, 200, "OK", sdp(9, 5000), "", nil); err != nil {
				t.Fatal(err)
			}
			res := answered(t, out.Tx)
			out.Learn(res)
			out.Ack(nil)
			far.Acked(take(t, atB, "the ACK").req)
			if l.RemoteTag() != far.LocalTag() || far.RemoteTag() != l.LocalTag() || !strings.Contains(string(l.RemoteSDP()), "m=audio 5000") {
				t.Errorf("%s %s %s", l.RemoteTag(), far.RemoteTag(), l.RemoteSDP())
			}
			firstID, firstVersion := origin(t, inv.req.Body())
			// From the called side, and with a body from another phone: the session stays the one that the other side knows.
			type outcome struct {
				res *sip.Response
				err error
			}
			done := make(chan outcome, 1)
			go func() {
				res, _, err := far.Reinvite(context.Background(), sdp(1, 6000), "", nil)
				done <- outcome{res, err}
			}()
			re := take(t, atA, "the re-INVITE")
			if !l.Matches(re.req) || !l.Fresh(re.req) || l.Fresh(re.req) {
				t.Error("the re-INVITE is not of the dialog, or fresh twice")
			}
			if _, _, err := far.Reinvite(context.Background(), sdp(1, 6000), "", nil); !errors.Is(err, ErrGlare) {
				t.Errorf("two INVITEs at once: %v", err)
			}
			l.Offered(re.req)
			if err := l.Respond(re.req, re.tx, 200, "OK", []byte(strings.Replace(string(sdp(3, 4002)), "phone 77", "other 1", 1)), "", nil); err != nil {
				t.Fatal(err)
			}
			if o := <-done; o.err != nil || o.res.StatusCode != 200 {
				t.Fatal(o.err)
			} else if id, version := origin(t, o.res.Body()); id != firstID || version <= firstVersion {
				t.Errorf("o= %s %s after %s %s", id, version, firstID, firstVersion)
			}
			l.Acked(take(t, atA, "the ACK").req)
			go l.Bye(context.Background())
			bye := take(t, atB, "the BYE")
			if bye.req.Method != sip.BYE || !far.Fresh(bye.req) {
				t.Errorf("%s", bye.req)
			}
			_ = far.Respond(bye.req, bye.tx, 200, "OK", nil, "", nil)
		})
	}
}

func TestA2xxIsRepeatedUntilItsACK(t *testing.T) {
	_, b, _, atB, l := pair(t, "udp")
	out, err := l.Invite(context.Background(), sdp(1, 4000), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	inv := take(t, atB, "the INVITE")
	far := b.Called(inv.req)
	if err := far.Respond(inv.req, inv.tx, 200, "OK", sdp(1, 5000), "", nil); err != nil {
		t.Fatal(err)
	}
	out.Learn(answered(t, out.Tx))
	again := make(chan struct{}, 8)
	out.Tx.OnRetransmission(func(*sip.Response) { again <- struct{}{} })
	take(t, again, "the second 2xx")
	out.Ack(nil)
	first := take(t, atB, "the ACK")
	// The ACK is lost: the next 2xx brings it again.
	second := take(t, atB, "the second ACK")
	if first.req.CSeq().SeqNo != inv.req.CSeq().SeqNo || second.req.CSeq().SeqNo != inv.req.CSeq().SeqNo || first.tx != nil {
		t.Errorf("%s %s", first.req, second.req)
	}
	far.Acked(second.req)
}

func TestACancelledINVITE(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("answered all the same ", late), func(t *testing.T) {
			_, b, _, atB, l := pair(t, "udp")
			out, err := l.Invite(context.Background(), sdp(1, 4000), "", nil)
			if err != nil {
				t.Fatal(err)
			}
			inv := take(t, atB, "the INVITE")
			cancelled := make(chan struct{})
			inv.tx.OnCancel(func(*sip.Request) { close(cancelled) })
			far := b.Called(inv.req)
			if !late {
				_ = far.Respond(inv.req, inv.tx, 180, "Ringing", nil, "", nil)
				answered(t, out.Tx)
				out.Cancel()
				out.Cancel() // once is enough
				take(t, cancelled, "the CANCEL")
				return
			}
			if err := far.Respond(inv.req, inv.tx, 200, "OK", sdp(1, 5000), "", nil); err != nil { // they cross
				t.Fatal(err)
			}
			out.Cancel()
			for {
				if a := take(t, atB, "the BYE"); a.req.Method == sip.BYE {
					_ = far.Respond(a.req, a.tx, 200, "OK", nil, "", nil)
					return
				} else if a.req.IsAck() {
					far.Acked(a.req)
				} else if a.req.IsCancel() {
					_ = a.tx.Respond(sip.NewResponseFromRequest(a.req, 481, "Call/Transaction Does Not Exist", nil))
				}
			}
		})
	}
}

// Requests of the dialog take the route that its answer recorded, turned round, and go to its Contact.
func TestRoutes(t *testing.T) {
	_, b, _, atB, l := pair(t, "udp")
	out, err := l.Invite(context.Background(), nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	inv := take(t, atB, "the INVITE")
	res := sip.NewResponseFromRequest(inv.req, 200, "OK", nil)
	at := b.Local("udp")
	hop := fmt.Sprintf("<sip:%s;lr>", at)
	res.AppendHeader(sip.NewHeader("Record-Route", "<sip:192.0.2.1;lr>, <sip:192.0.2.2;lr>, "+hop))
	res.AppendHeader(sip.NewHeader("Contact", "<sip:phone@192.0.2.99:5099>"))
	if err := inv.tx.Respond(res); err != nil {
		t.Fatal(err)
	}
	out.Learn(answered(t, out.Tx))
	out.Ack(nil)
	ack := take(t, atB, "the ACK")
	var routes []string
	for _, h := range ack.req.GetHeaders("Route") {
		routes = append(routes, h.Value())
	}
	if len(routes) != 3 || routes[0] != hop || routes[len(routes)-1] != "<sip:192.0.2.1;lr>" || ack.req.Recipient.Host != "192.0.2.99" {
		t.Errorf("Route %q to %s", routes, ack.req.Recipient.String())
	}
	l.StayWith() // off path, the mapped address holds for the whole dialog
	l.mu.Lock()
	l.routes = nil
	next := l.nextHop()
	l.mu.Unlock()
	if next != at.String() {
		t.Errorf("next hop %s", next)
	}
}

func TestRouteSets(t *testing.T) {
	for line, want := range map[string][]string{
		"<sip:a;lr>":                     {"<sip:a;lr>"},
		"<sip:a;lr>,<sip:b;lr>":          {"<sip:a;lr>", "<sip:b;lr>"},
		"<sip:a;x=1,2>, <sip:b;lr>;q=,c": {"<sip:a;x=1,2>", "<sip:b;lr>;q=", "c"},
	} {
		if got := routeSet([]sip.Header{sip.NewHeader("Record-Route", line)}); !slices.Equal(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
	if got := routeSet([]sip.Header{sip.NewHeader("Record-Route", strings.Repeat("<sip:a;lr>,", 40)+"<sip:b>")}); len(got) != 16 {
		t.Errorf("%d routes", len(got))
	}
}

func TestWhenAnAnswerDoesNotCome(t *testing.T) {
	_, _, _, atB, l := pair(t, "tcp")
	ctx, done := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer done()
	if _, err := l.Do(ctx, sip.OPTIONS, nil, "", nil); !errors.Is(err, ErrNoAnswer) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	take(t, atB, "the request")
}
