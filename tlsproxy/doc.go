// Package tlsproxy keeps the appliance's key pairs, certificates and trustpoints, and makes TLS and transparent TCP connections with them.
//
// Purpose: what an ASA does with crypto key, crypto ca trustpoint, enroll, authenticate, import and export, and the TLS
// policy of tls-proxy: mutual TLS towards the Internet (and inside on a secure trunk), the peer identified as RFC 5922 says.
//
// Specifications: RFC 5922 sections 7.1 and 7.2 (SIP domain identities in certificates, no wildcards), RFC 5280 (chains, dates, key usage),
// RFC 5246 and RFC 8446 (TLS 1.2 and 1.3), RFC 2986 (PKCS#10), RFC 7292 (PKCS#12), RFC 4514 (text of X.500 names).
//
// Data in: a state directory (files of mode 0600), PEM, DER and PKCS#12 from the operator, TCP connections and the peer's certificates.
// Data out: PKCS#10 requests, certificates, PKCS#12, *tls.Config values that look at the state of the moment of each handshake,
// listeners and connections with IP_TRANSPARENT, and errors that name the certificate and the reason.
//
// Limits: names of trustpoints and key pairs 1 to 128 characters; 1 MiB a PEM input, 4 MiB a PKCS#12 file, 256 certificates each;
// RSA 2048 to 8192 bits, ECDSA P-256, P-384 and P-521; TLS 1.2 and 1.3; 1024 half-open handshakes by default in a [HandshakeGate].
// There is no revocation check (CRL, OCSP): a certificate that must go is removed by removing its issuer or by its date.
//
// Layout of the state directory:
//
//	keys/LABEL.pem                   one key pair, PKCS#8
//	trustpoints/NAME/identity.pem    private key, identity certificate, intermediates: one file, so that key and certificate never part
//	trustpoints/NAME/ca.pem          what authenticate stored: authorities or pinned certificates of peers
//	trustpoints/NAME/bundle.pem      authorities that came in a PKCS#12 file
//	trustpoints/NAME/meta.json       how the trustpoint was enrolled
//	trustpoints/NAME/request.pem     the request that waits for its certificate
//	trustpoints/NAME/certificate.pem the identity certificate for a peer to pick up
//	.crypto/lock, generation, tmp/   lock between processes, change mark, temporary files
package tlsproxy
