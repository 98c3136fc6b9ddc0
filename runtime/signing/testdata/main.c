/*
 * main VERSION SEEN POLICY KEY.pub...: decides about manifests, as a device with VERSION
 * and SEEN. Each line of standard input is the time of the clock and a manifest. Prints
 * "good" or the reason for each.
 */
#include <stdlib.h>

static size_t
slurp(const char *file, char *buf, size_t size)
{
	FILE *f = fopen(file, "rb");
	size_t n;

	if (!f) {
		perror(file);
		exit(3);
	}
	n = fread(buf, 1, size - 1, f);
	buf[n] = '\0';
	fclose(f);

	return n;
}

int
main(int argc, char **argv)
{
	static char policy[65536], line[65536], text[8][1024];
	const char *keys[9] = { 0 }, *why, *jws;
	struct lws_context_creation_info info;
	struct lws_context *cx;
	struct manifest m;
	size_t len;
	int n;

	lws_set_log_level(0, NULL);
	memset(&info, 0, sizeof(info));
	info.port = CONTEXT_PORT_NO_LISTEN;
	info.options = LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
	if (argc < 5 || argc > 12 || !(cx = lws_create_context(&info)))
		return 3;
	len = slurp(argv[3], policy, sizeof(policy));
	for (n = 4; n < argc; n++) {
		slurp(argv[n], text[n - 4], sizeof(text[0]));
		keys[n - 4] = text[n - 4];
	}
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		jws = strchr(line, ' ') + 1;
		why = manifest_check(cx, keys, "station", jws, strlen(jws), &m);
		if (!why)
			why = manifest_accept(&m, strtoull(argv[1], NULL, 10), strtoull(argv[2], NULL, 10),
					      strtoull(line, NULL, 10), sizeof(policy));
		if (!why)
			why = manifest_policy(&m, policy, len);
		puts(why ? why : "good");
	}
	lws_context_destroy(cx);

	return 0;
}
