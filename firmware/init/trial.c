// How far a system on trial came, and the recovery kernel. See init.h.
#include "efi/efi_var.h"
#include "firmware/init/init.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_trial;
static int seconds;

bool kb_init_trial_open(const char *line)
{
	char text[16], root[16] = "", entry[KB_EFI_ENTRY_MAX] = "";
	is_trial = kb_init_option(line, "kb.root", root, sizeof root) > 0 &&
			   kb_efi_get_text(KB_EFI_VARS, KB_EFI_DEFAULT, entry, sizeof entry) == 0 && kb_efi_slot(entry) >= 0 &&
			   kb_efi_slot(entry) != (strcmp(root, "root_b") == 0);
	char *end = text;
	const unsigned long given = kb_init_option(line, "kb.trial", text, sizeof text) > 0 ? strtoul(text, &end, 10) : 0;
	seconds = given > 0 && given <= KB_INIT_TRIAL_S_MAX && !*end ? (int)given : KB_INIT_TRIAL_S;
	return is_trial;
}

void kb_init_trial_close(void)
{
	is_trial = false;
}

int kb_init_trial_seconds(void)
{
	return is_trial ? seconds : 0;
}

void kb_init_mark(const char *text)
{
	if (!is_trial)
		return;
	kb_efi_writable(KB_EFI_VARS, true);
	if (kb_efi_set_text(KB_EFI_VARS, KB_EFI_TRIAL, text))
		kb_init_say("the firmware's variables: %s", strerror(errno));
	kb_efi_writable(KB_EFI_VARS, false);
}

// Reads no disk and starts nothing: what it knows are variables of the firmware.
void kb_init_stage_recovery(void)
{
	char selected[64] = "", by_default[64] = "", entry[KB_EFI_ENTRY_MAX];
	unsigned char n = 0;
	struct kb_recovery r;
	kb_efi_get_text(KB_EFI_VARS, KB_EFI_SELECTED, selected, sizeof selected);
	kb_efi_get_text(KB_EFI_VARS, KB_EFI_DEFAULT, by_default, sizeof by_default);
	if (kb_efi_get(KB_EFI_VARS, KB_EFI_RECOVERIES, &n, sizeof n) != (ssize_t)sizeof n)
		n = 0;
	kb_init_recovery(selected, by_default, ++n, &r);
	kb_init_say("stage recovery: %s", r.reason);
	if (r.is_over) {
		kb_init_say(
			"neither slot of this disk starts; it has to be written anew. What the box has learned is on it still.");
		for (;;)
			pause();
	}
	kb_efi_writable(KB_EFI_VARS, true);
	bool is_good = kb_efi_set(KB_EFI_VARS, KB_EFI_RECOVERIES, &n, sizeof n) == 0 &&
				   kb_efi_set_text(KB_EFI_VARS, KB_EFI_TRIAL, r.reason) == 0;
	if (r.new_default >= 0) {
		kb_efi_entry(r.new_default, entry);
		is_good = kb_efi_set_text(KB_EFI_VARS, KB_EFI_DEFAULT, entry) == 0 && is_good;
		kb_init_say("%s starts from now on", entry);
	}
	if (!is_good)
		kb_init_say("the firmware's variables: %s", strerror(errno));
	sync();
	reboot(RB_AUTOBOOT);
	kb_init_die("restart: %s", strerror(errno));
}
