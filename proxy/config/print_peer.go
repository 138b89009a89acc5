package config

import "time"

func writePeerServer(c *Config, w *writer) {
	s := c.PeerServer
	if s == nil {
		return
	}
	w.line("peer-server")
	w.sub(s.Domain != "", "domain %s", s.Domain)
	w.sub(s.Interface != "", "listening-interface %s", s.Interface)
	w.sub(s.PublicAddress.IsValid(), "public-address %s", s.PublicAddress)
	w.sub(w.all || s.RingPort != DefaultRingPort, "dht-port %d", s.RingPort)
	w.sub(w.all || s.ValidatorPort != DefaultValidatorPort, "validator-port %d", s.ValidatorPort)
	w.flag(" ", s.BootstrapSelf, "bootstrap-server")
	for _, b := range s.Bootstraps {
		w.sub(true, "bootstrap host %s port %d", b.Host, b.Port)
	}
	w.sub(s.EnrollmentURL != "", "enrollment url %s", s.EnrollmentURL)
	w.sub(s.TrustFile != "", "enrollment trust-file %s", s.TrustFile)
	w.sub(s.TicketEpoch > 0, "ticket epoch %d password %s", s.TicketEpoch, w.secret(s.TicketPassword))
	for _, v := range s.VAPServers {
		how := "authenticated"
		if v.Encrypted {
			how = "encrypted trust-point " + v.Trustpoint
		}
		w.sub(true, "vapserver %s interface %s port %d authentication-mode %s", v.Name, v.Interface, v.Port, how)
		w.sub(w.all || v.Keepalive != DefaultVAPKeepalive, "vapserver %s keepalive-interval %d", v.Name, v.Keepalive/time.Second)
		w.sub(w.all || v.MaxConnections != DefaultVAPConnections, "vapserver %s max-connections %d", v.Name, v.MaxConnections)
		w.sub(v.Shutdown, "vapserver %s shutdown", v.Name)
		w.sub(w.all && !v.Shutdown, "no vapserver %s shutdown", v.Name)
	}
	for _, u := range s.VAPUsers {
		w.sub(true, "vapuser %s password %s", u.Name, w.secret(u.Password))
	}
	w.sub(w.all || s.BucketEntropy != DefaultBucketEntropy, "validator bucket-entropy %d", s.BucketEntropy)
	w.sub(w.all || s.CallInterval != DefaultCallInterval, "validator call-interval %d", s.CallInterval/time.Second)
	w.sub(w.all || s.DelayMin != DefaultDelayMin || s.DelayMax != DefaultDelayMax, "validator delay %d %d", s.DelayMin/time.Second, s.DelayMax/time.Second)
	w.sub(w.all || s.RecordLifetime != DefaultRecordLifetime, "validator record-lifetime %d", s.RecordLifetime/time.Hour)
	w.sub(s.Webhook != "", "alert webhook %s", s.Webhook)
	for i, text := range s.Customer {
		w.sub(text != "", "customer-info %s %s", CustomerFields[i], text)
	}
}
