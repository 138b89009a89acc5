/*
 * An SRTP peer that shares no code with the one under test: libsrtp2.
 *
 *   srtp_peer SUITE TXKEYHEX RXKEYHEX [MKIHEX]      (key and salt joined)
 *
 * Lines in:  p HEX (protect RTP), u HEX (unprotect RTP), P and U (RTCP).
 * Lines out: HEX, or "! STATUS" with libsrtp's error number.
 */
#include <srtp2/srtp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PACKET = 4096 };

static int unhex(const char *s, uint8_t *out, int max)
{
    int n = 0;
    unsigned byte;

    while (n < max && sscanf(s, "%2x", &byte) == 1) {
        out[n++] = (uint8_t)byte;
        s += 2;
    }
    return n;
}

/* Faster than sscanf: used for each packet. */
static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int unhex_packet(const char *s, uint8_t *out)
{
    int n = 0;

    while (n < MAX_PACKET && digit(s[0]) >= 0 && digit(s[1]) >= 0) {
        out[n++] = (uint8_t)(digit(s[0]) << 4 | digit(s[1]));
        s += 2;
    }
    return n;
}

static void policy_for(const char *suite, srtp_policy_t *p)
{
    if (!strcmp(suite, "AES_CM_128_HMAC_SHA1_80")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&p->rtp);
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&p->rtcp);
    } else if (!strcmp(suite, "AES_CM_128_HMAC_SHA1_32")) {
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_32(&p->rtp);
        /* RFC 4568 section 6.2.2: SRTCP keeps the tag of 80 bits. */
        srtp_crypto_policy_set_aes_cm_128_hmac_sha1_80(&p->rtcp);
    } else if (!strcmp(suite, "AEAD_AES_128_GCM")) {
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&p->rtp);
        srtp_crypto_policy_set_aes_gcm_128_16_auth(&p->rtcp);
    } else if (!strcmp(suite, "AEAD_AES_256_GCM")) {
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&p->rtp);
        srtp_crypto_policy_set_aes_gcm_256_16_auth(&p->rtcp);
    } else {
        fprintf(stderr, "unknown suite %s\n", suite);
        exit(2);
    }
}

static srtp_t session(const char *suite, const char *hex, srtp_ssrc_type_t type,
                      uint8_t *mki, int mki_len)
{
    static uint8_t keys[2][64];
    static srtp_master_key_t masters[2];
    static srtp_master_key_t *lists[2][1];
    int i = type == ssrc_any_outbound;
    srtp_policy_t p;
    srtp_t s;
    srtp_err_status_t err;

    memset(&p, 0, sizeof p);
    policy_for(suite, &p);
    p.ssrc.type = type;
    p.window_size = 128;
    unhex(hex, keys[i], sizeof keys[i]);
    if (mki_len > 0) {
        masters[i].key = keys[i];
        masters[i].mki_id = mki;
        masters[i].mki_size = (unsigned)mki_len;
        lists[i][0] = &masters[i];
        p.keys = lists[i];
        p.num_master_keys = 1;
    } else {
        p.key = keys[i];
    }
    err = srtp_create(&s, &p);
    if (err) {
        fprintf(stderr, "srtp_create: %d\n", err);
        exit(2);
    }
    return s;
}

int main(int argc, char **argv)
{
    static char line[2 * MAX_PACKET + 16];
    static uint8_t mki[128];
    static uint32_t aligned[MAX_PACKET / 4 + 64];
    uint8_t *pkt = (uint8_t *)aligned;
    int mki_len, len, i;
    srtp_t tx, rx;

    if (argc < 4)
        return 2;
    if (srtp_init())
        return 2;
    mki_len = argc > 4 ? unhex(argv[4], mki, sizeof mki) : 0;
    tx = session(argv[1], argv[2], ssrc_any_outbound, mki, mki_len);
    rx = session(argv[1], argv[3], ssrc_any_inbound, mki, mki_len);

    while (fgets(line, sizeof line, stdin)) {
        srtp_err_status_t err = srtp_err_status_fail;
        unsigned use = mki_len > 0;

        len = unhex_packet(line + 2, pkt);
        switch (line[0]) {
        case 'p': err = srtp_protect_mki(tx, pkt, &len, use, 0); break;
        case 'P': err = srtp_protect_rtcp_mki(tx, pkt, &len, use, 0); break;
        case 'u': err = srtp_unprotect_mki(rx, pkt, &len, use); break;
        case 'U': err = srtp_unprotect_rtcp_mki(rx, pkt, &len, use); break;
        }
        if (err) {
            printf("! %d\n", err);
        } else {
            for (i = 0; i < len; i++) {
                putchar("0123456789abcdef"[pkt[i] >> 4]);
                putchar("0123456789abcdef"[pkt[i] & 15]);
            }
            putchar('\n');
        }
        fflush(stdout);
    }
    srtp_dealloc(tx);
    srtp_dealloc(rx);
    return 0;
}
