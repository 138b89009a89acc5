package mapping

import "testing"

func TestFlows(t *testing.T) {
	l := newLab(t)
	l.apply(labSpec())
	l.serve(l.box, "127.0.0.1:15060")
	l.serve(l.box, "127.0.0.1:15061")
	for _, p := range []string{"5061", "80", "443"} {
		l.serve(l.outside, remoteAddr+":"+p)
	}
	for _, p := range []string{"5070", "8000", "22"} {
		l.serve(l.ca, caReal+":"+p)
	}
	l.serve(l.phone, phoneReal+":80")
	l.serve(l.box, "0.0.0.0:2222")
	l.serve(l.box, "0.0.0.0:3333")

	l.reach("outbound SIP is intercepted", l.ca, "", remoteAddr+":5061", remoteAddr+":5061", caReal)
	l.reach("inbound SIP is intercepted", l.outside, "", caMapped+":5070", caMapped+":5070", remoteAddr)
	l.reach("the proxy reaches the remote as the mapped address", l.box, caMapped+":0", remoteAddr+":5061", remoteAddr+":5061", caMapped)
	l.reach("the proxy reaches the call agent as the remote", l.box, remoteAddr+":0", caReal+":5070", caReal+":5070", remoteAddr)
	l.reach("the call agent's other traffic is translated", l.ca, "", remoteAddr+":80", remoteAddr+":80", caMapped)
	l.reach("the mapped address leads to the call agent", l.outside, "", caMapped+":8000", caReal+":8000", remoteAddr)
	l.reach("port forward", l.outside, "", patMapped+":8080", phoneReal+":80", remoteAddr)
	l.reach("dynamic PAT", l.phone, "", remoteAddr+":443", remoteAddr+":443", patMapped)
	l.reach("a phone's connection in the class's ports is not of the class", l.phone, "", remoteAddr+":5061", remoteAddr+":5061", patMapped)
	l.reach("call agent to a port of the box within the class", l.ca, "", boxIn+":3333", boxIn+":3333", caReal)
	l.reach("open port of the box from outside", l.outside, "", boxOut+":2222", boxOut+":2222", remoteAddr)

	l.unreachable("port of the mapped address that no rule permits", l.outside, caMapped+":22")
	l.unreachable("real address, permitted port", l.outside, caReal+":8000")
	l.unreachable("real address, SIP", l.outside, caReal+":5070")
	l.unreachable("phone's real address", l.outside, phoneReal+":80")
	l.unreachable("box from outside, port not open", l.outside, boxOut+":3333")
	l.unreachable("listener itself from outside", l.outside, boxOut+":15061")
}
