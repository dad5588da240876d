/* see commands.h */
#include "firmware/ctl/commands.h"

#include <string.h>

#define NO_LIMIT 1e15

const struct kb_ctl_option kb_ctl_globals[] = {
	[KB_GLOBAL_STATE] = {"state", KB_CTL_TEXT, "DIR",
		"the box's state ($KB_STATE; else /var/lib/kotobako for root, $XDG_DATA_HOME/kotobako for others)", 0, 0},
	[KB_GLOBAL_BOX] = {"box", KB_CTL_TEXT, "HOST[:PORT]", "the box (else the one this client was paired with)", 0, 0},
	[KB_GLOBAL_CLIENT] = {"client", KB_CTL_TEXT, "DIR", "this client's certificate and key ($XDG_CONFIG_HOME/kotobako)",
		0, 0},
	[KB_GLOBAL_TPM] = {"tpm", KB_CTL_TEXT, "TCTI",
		"the TPM that counts changes of the state, as kotobakod has it ($KB_TPM; none)", 0, 0},
	[KB_GLOBAL_VERSION] = {"version", KB_CTL_FLAG, NULL, "say the version and leave", 0, 0},
	{0},
};

static const struct kb_ctl_option import_options[] = {
	[KB_IMPORT_NAME] = {"name", KB_CTL_TEXT, "NAME", "the model's name (else made of the file's)", 0, 0},
	[KB_IMPORT_OUT] = {"out", KB_CTL_TEXT, "FILE.kbm", "write the image there, not into the box's models", 0, 0},
	[KB_IMPORT_REPLACE] = {"replace", KB_CTL_FLAG, NULL, "replace an image of that name", 0, 0},
	{0},
};
static const struct kb_ctl_option model_options[] = {
	[KB_MODEL_JSON] = {"json", KB_CTL_FLAG, NULL, "list as JSON", 0, 0},
	[KB_MODEL_KEEP] = {"keep-previous", KB_CTL_FLAG, NULL, "install: fail rather than drop previous versions for room",
		0, 0},
	[KB_MODEL_KEY] = {"key", KB_CTL_TEXT, "KEY.pem", "install: opens sealed images (STATE/unseal.pem)", 0, 0},
	[KB_MODEL_CA] = {"ca", KB_CTL_TEXT, "CA.pem", "update: who vouches for the mirror (--client's ca.pem)", 0, 0},
	[KB_MODEL_ALL] = {"all", KB_CTL_FLAG, NULL, "update: also models that this box does not have", 0, 0},
	{0},
};
static const struct kb_ctl_option key_options[] = {
	[KB_KEY_CURVE] = {"curve", KB_CTL_TEXT, "p256|p384", "new: which curve (p256)", 0, 0},
	{0},
};

#define SIGN_OPTIONS                                                                                              \
	[KB_SIGN_KEY] = {"key", KB_CTL_TEXT, "KEY.pem", "sign, unseal: the private key", 0, 0},                       \
	[KB_SIGN_EXPORT] = {"export", KB_CTL_TEXT, "FILE", "sign: write what is to be signed elsewhere", 0, 0},       \
	[KB_SIGN_IMPORT] = {"import", KB_CTL_TEXT, "SIGNATURE.der", "sign: take the signature made elsewhere", 0, 0}, \
	[KB_SIGN_PUBLIC] = {"public", KB_CTL_TEXT, "KEY.pub", "sign: whose that signature is", 0, 0}

static const struct kb_ctl_option root_options[] = {
	SIGN_OPTIONS,
	{0},
};
static const struct kb_ctl_option catalog_options[] = {
	SIGN_OPTIONS,
	[KB_CATALOG_ROOTS] = {"roots", KB_CTL_TEXT, "CHAIN", "build: the fleet's chain of roots", 0, 0},
	[KB_CATALOG_VERSION] = {"version", KB_CTL_COUNT, "N", "build: counts up, from 1", 1, NO_LIMIT},
	{0},
};
static const struct kb_ctl_option audit_options[] = {
	[KB_AUDIT_JSON] = {"json", KB_CTL_FLAG, NULL, "list: a JSON object a line", 0, 0},
	[KB_AUDIT_SINCE] = {"since", KB_CTL_COUNT, "N", "list: from entry N on", 1, NO_LIMIT},
	{0},
};
static const struct kb_ctl_option image_options[] = {
	SIGN_OPTIONS,
	[KB_IMAGE_ROOTS] = {"roots", KB_CTL_TEXT, "CHAIN", "the fleet's chain of roots", 0, 0},
	[KB_IMAGE_MODEL] = {"model", KB_CTL_TEXT, "NAME", "build: the name that boxes list it by", 0, 0},
	[KB_IMAGE_VERSION] = {"version", KB_CTL_COUNT, "N", "build: counts up, from 1", 1, NO_LIMIT},
	[KB_IMAGE_LICENCE] = {"licence", KB_CTL_TEXT, "SPDX", "build: else what the model says", 0, 0},
	[KB_IMAGE_ORIGIN] = {"origin", KB_CTL_TEXT, "TEXT", "build: where the weights are from", 0, 0},
	[KB_IMAGE_RECIPE] = {"recipe", KB_CTL_TEXT, "TEXT", "build: how they were quantised (else the kinds)", 0, 0},
	[KB_IMAGE_QUALITY] = {"quality", KB_CTL_TEXT, "TEXT", "build: what was measured", 0, 0},
	[KB_IMAGE_FIRMWARE] = {"min-firmware", KB_CTL_COUNT, "N", "build: the oldest that can run it (this)", 1, NO_LIMIT},
	[KB_IMAGE_MEMORY] = {"device-memory", KB_CTL_COUNT, "BYTES", "build: what it needs (the file's size)", 0, NO_LIMIT},
	[KB_IMAGE_BASE] = {"base", KB_CTL_TEXT, "DIGEST", "build: it is an adapter for this model file", 0, 0},
	[KB_IMAGE_REPLACE] = {"replace", KB_CTL_FLAG, NULL, "build, diff: replace a file of that name", 0, 0},
	[KB_IMAGE_JSON] = {"json", KB_CTL_FLAG, NULL, "inspect: as JSON", 0, 0},
	[KB_IMAGE_TO] = {"to", KB_CTL_TEXT, "KEY.pub,...", "seal: whose boxes may read it", 0, 0},
	[KB_IMAGE_CA] = {"ca", KB_CTL_TEXT, "CA.pem", "fetch: who vouches for the server (--client's ca.pem)", 0, 0},
	[KB_IMAGE_LISTEN] = {"listen", KB_CTL_TEXT, "ADDRESS:PORT", "serve: where (127.0.0.1:8444)", 0, 0},
	{0},
};
static const struct kb_ctl_option claim_options[] = {
	[KB_CLAIM_CODE] = {"code", KB_CTL_TEXT, "CODE", "what the box's screen shows (else it is asked for)", 0, 0},
	[KB_CLAIM_NAME] = {"name", KB_CTL_TEXT, "NAME", "of this client (user@machine)", 0, 0},
	[KB_CLAIM_OUT] = {"out", KB_CTL_TEXT, "DIR", "write the client's files there (--client)", 0, 0},
	[KB_CLAIM_REPLACE] = {"replace", KB_CTL_FLAG, NULL, "replace a client's files that are there", 0, 0},
	{0},
};
static const struct kb_ctl_option console_options[] = {
	[KB_CONSOLE_TTY] = {"tty", KB_CTL_TEXT, "DEVICE", "draw there (on standard output)", 0, 0},
	[KB_CONSOLE_ONCE] = {"once", KB_CTL_FLAG, NULL, "say it once and leave", 0, 0},
	{0},
};
static const struct kb_ctl_option network_options[] = {
	[KB_NETWORK_GATEWAY] = {"gateway", KB_CTL_TEXT, "ADDRESS", "set: who leads out of the network (nobody)", 0, 0},
	[KB_NETWORK_TIME] = {"time", KB_CTL_TEXT, "ADDRESS,...", "set: NTP servers; none: what DHCP names (as it was)", 0,
		0},
	[KB_NETWORK_NAME] = {"name", KB_CTL_TEXT, "NAME", "set: it is NAME.local; none: one of its own (as it was)", 0, 0},
	[KB_NETWORK_JSON] = {"json", KB_CTL_FLAG, NULL, "as JSON", 0, 0},
	{0},
};
static const struct kb_ctl_option os_options[] = {
	[KB_OS_BOARD] = {"board", KB_CTL_TEXT, "NAME", "build: which board it is for", 0, 0},
	[KB_OS_VERSION] = {"version", KB_CTL_COUNT, "N", "build: counts up, from 1", 1, NO_LIMIT},
	[KB_OS_FLOOR] = {"floor", KB_CTL_COUNT, "N", "build: once it is in use, nothing older comes in", 1, NO_LIMIT},
	[KB_OS_ROOTS] = {"roots", KB_CTL_TEXT, "CHAIN", "build: the fleet's chain of roots", 0, 0},
	[KB_OS_ROOT_IMAGE] = {"root", KB_CTL_TEXT, "FILE", "build: the root with its hash tree", 0, 0},
	[KB_OS_KERNEL_A_FILE] = {"kernel-a", KB_CTL_TEXT, "FILE.efi", "build: what starts it in slot a", 0, 0},
	[KB_OS_KERNEL_B_FILE] = {"kernel-b", KB_CTL_TEXT, "FILE.efi", "build: what starts it in slot b", 0, 0},
	[KB_OS_REPLACE] = {"replace", KB_CTL_FLAG, NULL, "build: replace a file of that name", 0, 0},
	[KB_OS_AGAIN] = {"again", KB_CTL_FLAG, NULL, "install: also a version that failed here before", 0, 0},
	[KB_OS_JSON] = {"json", KB_CTL_FLAG, NULL, "status: as JSON", 0, 0},
	[KB_OS_BOOT] = {"boot", KB_CTL_TEXT, "FILE", "what this start is (/run/kotobako/boot)", 0, 0},
	{0},
};
static const struct kb_ctl_option pair_options[] = {
	[KB_PAIR_NAME] = {"name", KB_CTL_TEXT, "NAME", "the client's name (else user@machine)", 0, 0},
	[KB_PAIR_OUT] = {"out", KB_CTL_TEXT, "DIR", "where the files go (else --client)", 0, 0},
	[KB_PAIR_REPLACE] = {"replace", KB_CTL_FLAG, NULL, "replace a certificate that is there already", 0, 0},
	[KB_PAIR_ADMIN] = {"admin", KB_CTL_FLAG, NULL, "it may also install models over the network", 0, 0},
	{0},
};
static const struct kb_ctl_option clients_options[] = {
	[KB_CLIENTS_JSON] = {"json", KB_CTL_FLAG, NULL, "as JSON", 0, 0},
	{0},
};
static const struct kb_ctl_option status_options[] = {
	[KB_STATUS_JSON] = {"json", KB_CTL_FLAG, NULL, "as JSON", 0, 0},
	{0},
};

#define ASK_OPTIONS                                                                                         \
	[KB_RUN_MODEL] = {"model", KB_CTL_TEXT, "NAME", "the model (else the box's default)", 0, 0},            \
	[KB_RUN_SYSTEM] = {"system", KB_CTL_TEXT, "TEXT", "the system text", 0, 0},                             \
	[KB_RUN_MAX_TOKENS] = {"max-tokens", KB_CTL_COUNT, "N", "end the answer after N tokens", 1, 1 << 20},   \
	[KB_RUN_TEMPERATURE] = {"temperature", KB_CTL_REAL, "T", "0: always the likeliest token", 0, 2},        \
	[KB_RUN_TOP_P] = {"top-p", KB_CTL_REAL, "P", "choose among the likeliest tokens that make up P", 0, 1}, \
	[KB_RUN_SEED] = {"seed", KB_CTL_COUNT, "N", "the same seed gives the same answer", 0, NO_LIMIT},        \
	[KB_RUN_WAIT] = {"wait", KB_CTL_COUNT, "SECONDS", "how long to wait for a busy box (60)", 0, 86400},    \
	[KB_RUN_STATS] = {"stats", KB_CTL_FLAG, NULL, "say the speed on standard error", 0, 0}

static const struct kb_ctl_option run_options[] = {
	ASK_OPTIONS,
	[KB_RUN_JSON] = {"json", KB_CTL_FLAG, NULL, "one JSON object with text, usage and speed, at the end", 0, 0},
	{0},
};
static const struct kb_ctl_option chat_options[] = {
	ASK_OPTIONS,
	[KB_CHAT_NO_HISTORY] = {"no-history", KB_CTL_FLAG, NULL, "keep no file of what was typed", 0, 0},
	{0},
};
static const struct kb_ctl_option bench_options[] = {
	[KB_BENCH_IMAGE] = {"image", KB_CTL_TEXT, "FILE.kbm", "an image outside the box's models", 0, 0},
	[KB_BENCH_PROMPT] = {"prompt", KB_CTL_COUNT, "N", "tokens to read (128)", 1, 1 << 20},
	[KB_BENCH_DECODE] = {"decode", KB_CTL_COUNT, "N", "tokens to generate (64)", 1, 1 << 20},
	[KB_BENCH_JSON] = {"json", KB_CTL_FLAG, NULL, "one JSON object", 0, 0},
	{0},
};
static const struct kb_ctl_option doctor_options[] = {
	[KB_DOCTOR_IMAGE] = {"image", KB_CTL_TEXT, "FILE.kbm", "an image outside the box's models", 0, 0},
	{0},
};

const struct kb_ctl_command kb_ctl_commands[] = {
	{"chat", "", "talk with a model",
		"Lines are edited with the usual keys; the arrow keys and Ctrl-R go through what was typed before (kept in the "
		"client directory, readable only by you). Ctrl-C stops an answer, Ctrl-D leaves. A line that ends with a "
		"backslash goes on; three double quotes begin and end a block of lines. /help lists the commands: /new /system "
		"/model /save /load /quit.\nThrough a pipe it reads lines and prints answers, and ends at the first failure.",
		chat_options, 0, 0, kb_ctl_chat},
	{"run", "PROMPT", "ask one question, print the answer",
		"The answer goes to standard output as it comes. With - the prompt is read from standard input. On a terminal, "
		"control characters in the answer are left out. Ctrl-C stops it, and the box with it.",
		run_options, 1, 1, kb_ctl_run},
	{"import", "FILE.gguf", "make a model image of a GGUF file",
		"Weights are repacked once into the layout the shaders read; every weight keeps its value, except for the "
		"kinds that the report calls re-quantised. A file that is cut, damaged or hostile gives an error that names "
		"the place and leaves nothing behind.",
		import_options, 1, 1, kb_ctl_import},
	{"model",
		"list | show NAME | verify NAME | digest NAME | remove NAME | install FILE | rollback NAME | upload FILE | "
		"update URL | DIR",
		"the box's models",
		"list: names, sizes, kinds. show: metadata of one. verify: reads all of it and compares it with its hashes. "
		"digest: what fs-verity measures of the file, as `fsverity digest` prints it. "
		"remove: deletes it; an engine that has it open goes on with it until it ends.\n"
		"install: a signed image, from a file or, with -, from standard input; it is verified as it is read, and "
		"becomes "
		"active whole or not at all. rollback: the version before is active again. Both are for boxes that trust a "
		"root (kotobako root trust). upload: a signed image over the network to the box that this client is paired "
		"with, "
		"as its administrator (pair --admin); one that was cut goes on where it was. update: takes the catalog of a "
		"mirror "
		"(URL/catalog.kbc) and the images that it lists and this box has older ones of; or the catalog and all images "
		"of a "
		"folder, a stick say.",
		model_options, 1, 2, kb_ctl_model},
	{"key", "new FILE | show FILE", "keys that sign roots and images",
		"new: a private key in FILE (0600, PEM) and the public one in FILE.pub. show: curve and id of either; openssl "
		"reads and makes the same files.",
		key_options, 2, 2, kb_ctl_key},
	{"root", "build SPEC.json CHAIN | sign CHAIN | show CHAIN | trust CHAIN | trusted | adopt",
		"who may sign for a fleet of boxes",
		"build: appends the root that SPEC.json describes to the fleet's chain, or begins it. sign: puts a signature "
		"over the newest root into the chain; a new root wants enough keys of the old one and of its own. show: what "
		"each says and who signed; exit status 1 where signatures are missing.\ntrust: this box takes the chain's "
		"newest "
		"root, the first time on the administrator's word, later only if it follows the one it has; from then on it "
		"runs signed images only. trusted: says which it is. adopt: this state and this TPM belong together, whatever "
		"its "
		"counter says: after a restored backup or a changed TPM.\nWith --export and --import the key "
		"stays on a machine without a network, or in a token that openssl can use.",
		root_options, 1, 3, kb_ctl_root},
	{"catalog", "build CATALOG IMAGE... | sign CATALOG | show [CATALOG] | install CATALOG",
		"what is current in a fleet, signed",
		"build: a list of these images, which are the current ones of their models. sign: puts a signature into it. "
		"show: "
		"what it says, and whether it is signed; without CATALOG that of this box. install: this box takes it; from "
		"then "
		"on no model comes in that is older than the catalog says.",
		catalog_options, 1, 1 + KB_CATALOG_ARGS_MAX, kb_ctl_catalog},
	{"image",
		"build MODEL OUT.kbm | sign FILE | verify FILE | diff OLD NEW OUT | "
		"inspect FILE | seal FILE OUT | unseal FILE OUT | fetch URL OUT | serve [DIR]",
		"models as signed images",
		"build: packs a model of the box, or a file NAME.kbm that import made, with manifest and hash tree; the same "
		"input and SOURCE_DATE_EPOCH give the same bytes. sign: puts a signature into the image, in place. verify: "
		"reads it as a box does that trusts the chain's newest root; - is standard input. diff: the image NEW without "
		"what a "
		"box with OLD has already; signatures stay valid. inspect: what it says of itself, "
		"unproven. seal: puts a coat around it that only holders of these keys can take off; unseal takes it off. "
		"fetch: a file from a server on the network, in four parts at a time; one that was cut goes on. serve: the "
		"images "
		"in DIR, or without it this box's installed models, to boxes that were paired with this one; until Ctrl-C.",
		image_options, 1, 4, kb_ctl_image},
	{"os", "build OUT.kbm | install FILE | DIR | upload FILE | status | rollback",
		"the box's system, as signed images and in its slots",
		"build: packs a root and its two kernels as a system image, to be signed like a model's (image sign), by the "
		"fleet's keys for systems. install: into the slot that does not run, read back, then started once on trial: "
		"only if the daemon answers and a model gives a token within two minutes does it start by itself from then on; "
		"else the box is back on the system before, and status says why. A folder: the newest for this board in it. "
		"upload: over the network to the box that this client is paired with, as its administrator; status and "
		"rollback too ask that box, unless this machine is one. "
		"rollback: tries the system before in the same way.\n"
		"settle, armed, check, proven, failed: for the box itself.",
		os_options, 1, 2, kb_ctl_os},
	{"console", "", "the box's own screen",
		"Name, addresses, models, system, and while the box has no client the code that claims it, as digits and as a "
		"QR "
		"code. Drawn anew where something changes, until Ctrl-C. Over STATE/admin.sock.",
		console_options, 0, 0, kb_ctl_console},
	{"network", "[set dhcp | set ADDRESS/PREFIX | load FILE]", "the box's addresses, name and time servers",
		"Without words: what is set and where the box is. set: by DHCP, or a fixed address; the box is there within "
		"seconds, and its certificate names the address. load: rows of a file, as a stick brings them. Of the box that "
		"this client is paired with, as its administrator, or of this machine if it is one.",
		network_options, 0, 2, kb_ctl_network},
	{"claim", "", "become the first client of a box, by the code that it shows",
		"A box without clients shows a code for half an hour after power-on. Whoever sends it first is its "
		"administrator. "
		"Neither the code nor the key crosses the network, and who stands between is found out. --box is the address "
		"that the box shows.",
		claim_options, 0, 0, kb_ctl_claim},
	{"pair", "", "make this user a client of the box",
		"Makes a private key here (it never leaves), has the running kotobakod sign a certificate for it over "
		"STATE/admin.sock, and writes cert.pem, key.pem, ca.pem and box.json. --box says under which name and port the "
		"client will reach the box (127.0.0.1:8443).",
		pair_options, 0, 0, kb_ctl_pair},
	{"audit", "list | verify", "what was done to this box",
		"list: every install, rollback, refusal and change of trust, with its place in the chain of hashes. verify: "
		"whether the log is unbroken; it prints the last hash, which is worth keeping elsewhere: nothing up to it can "
		"be "
		"changed afterwards without being found.",
		audit_options, 1, 1, kb_ctl_audit},
	{"clients", "", "list the paired clients", "Names, fingerprints, days of pairing and revocation.", clients_options,
		0, 0, kb_ctl_clients},
	{"revoke", "NAME", "end a client's access", "Its certificate and bearer key are refused from then on, for ever.",
		NULL, 1, 1, kb_ctl_revoke},
	{"bearer", "NAME", "make a bearer key for a paired client",
		"For tools that cannot use certificates; kotobakod must run with --bearer ADDRESS:PORT. The key is printed "
		"once and stored nowhere; it replaces the client's earlier key.",
		NULL, 1, 1, kb_ctl_bearer},
	{"status", "", "what the daemon says of itself",
		"Over STATE/admin.sock where it is there or --state is given; else over TLS from the box this client is paired "
		"with.",
		status_options, 0, 0, kb_ctl_status},
	{"bench", "[MODEL]", "measure reading, answering, start and memory",
		"Runs kotobako-engine --bench; the daemon is not needed. Without MODEL: the only model there is.",
		bench_options, 0, 1, kb_ctl_bench},
	{"doctor", "[MODEL]", "check the installation and the compute device",
		"First state directory, models, daemon, certificates and box; then, by kotobako-engine --doctor, devices, "
		"limits, what is used and why, and with a model the memory it takes.",
		doctor_options, 0, 1, kb_ctl_doctor},
	{0},
};

const struct kb_ctl_command *kb_ctl_command_find(const char *name)
{
	for (const struct kb_ctl_command *c = kb_ctl_commands; c->name; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

// Paragraphs, wrapped at width columns behind indent spaces.
static void print_wrapped(FILE *f, const char *text, int indent, int width)
{
	int column = 0;
	while (*text) {
		if (*text == '\n' || *text == ' ') {
			if (*text++ == '\n') {
				fputs("\n\n", f);
				column = 0;
			}
			continue;
		}
		int len = (int)strcspn(text, " \n");
		if (column > 0 && column + 1 + len > width) {
			fputc('\n', f);
			column = 0;
		}
		if (column == 0)
			column = fprintf(f, "%*s%.*s", indent, "", len, text);
		else
			column += fprintf(f, " %.*s", len, text);
		text += len;
	}
	fputc('\n', f);
}

static void print_options(FILE *f, const struct kb_ctl_option *table)
{
	for (const struct kb_ctl_option *o = table; o && o->name; o++) {
		char left[48];
		snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
		fprintf(f, "  %-22s %s\n", left, o->help);
	}
}

void kb_ctl_help(FILE *f)
{
	fprintf(f, "usage: kotobako [OPTION...] COMMAND [ARGUMENT...]\n\ncommands:\n");
	for (const struct kb_ctl_command *c = kb_ctl_commands; c->name; c++)
		fprintf(f, "  %-10s %s\n", c->name, c->help);
	fprintf(f, "  %-10s %s\n\noptions for every command:\n", "help", "this list; help COMMAND says more");
	print_options(f, kb_ctl_globals);
	fprintf(f, "\nexit status: 0 done, 1 failed, 2 wrong usage, 3 the box cannot be reached, 130 stopped by Ctrl-C\n");
}

void kb_ctl_help_command(FILE *f, const struct kb_ctl_command *c)
{
	fprintf(f, "kotobako %s - %s\n\nusage: kotobako %s%s%s%s\n\n", c->name, c->help, c->name,
		c->arguments[0] ? " " : "", c->arguments, c->options ? " [OPTION...]" : "");
	print_wrapped(f, c->text, 2, 80);
	if (c->options) {
		fprintf(f, "\noptions:\n");
		print_options(f, c->options);
	}
	fprintf(f, "\noptions for every command:\n");
	print_options(f, kb_ctl_globals);
}
