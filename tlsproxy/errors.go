package tlsproxy

import "errors"

// Reasons for a refusal. Each comes wrapped in an error whose text names the trustpoint, key pair or certificate and says what to do; test with [errors.Is].
var (
	// ErrName: a trustpoint name or key label is empty, too long or holds control characters.
	ErrName = errors.New("name not usable")
	// ErrNoTrustpoint: the store has nothing for that trustpoint.
	ErrNoTrustpoint = errors.New("unknown trustpoint")
	// ErrNoCertificate: the trustpoint has no identity certificate.
	ErrNoCertificate = errors.New("no identity certificate")
	// ErrNoKey: no key pair with that label.
	ErrNoKey = errors.New("no such key pair")
	// ErrKeyExists: a key pair with that label is there and overwriting was not asked for.
	ErrKeyExists = errors.New("key pair exists")
	// ErrKeyMismatch: a certificate does not fit its key pair.
	ErrKeyMismatch = errors.New("certificate does not fit the key pair")
	// ErrWeakKey: RSA below 2048 bits, ECDSA below 256 bits, or another algorithm.
	ErrWeakKey = errors.New("weak key")
	// ErrWeakSignature: signed with MD2, MD5 or SHA-1.
	ErrWeakSignature = errors.New("weak signature")
	// ErrExpired: past the certificate's last day.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotYetValid: before the certificate's first day.
	ErrNotYetValid = errors.New("certificate is not yet valid")
	// ErrUsage: key usage or extended key usage does not permit the use.
	ErrUsage = errors.New("key usage does not permit this")
	// ErrMalformed: the input is not PEM, DER, PKCS#12 or an X.500 name that can be read.
	ErrMalformed = errors.New("malformed input")
	// ErrTooLarge: the input is over the limits of the package documentation.
	ErrTooLarge = errors.New("input too large")
	// ErrPassphrase: the passphrase does not open the PKCS#12 file.
	ErrPassphrase = errors.New("wrong passphrase")
	// ErrBusy: another process held the state directory's lock for too long.
	ErrBusy = errors.New("state directory is busy")
	// ErrCipherSuite: a cipher-suite list that cannot be used.
	ErrCipherSuite = errors.New("cipher-suite list not usable")
	// ErrAlgorithm: key algorithm or size that cannot be made.
	ErrAlgorithm = errors.New("key algorithm not usable")
	// ErrChain: a certificate given as part of a chain does not belong to it.
	ErrChain = errors.New("certificate is not part of the chain")
)
