/* see progress.h */
#include "firmware/ctl/progress.h"

#include <string.h>

#define BAR 24        // cells
#define REDRAW_MS 100 // a person sees no more

const char *kb_ctl_bytes(uint64_t n, char ret[static 16])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	double v = (double)n;
	size_t u = 0;
	while (v >= 999.5 && u + 1 < sizeof units / sizeof *units) {
		v /= 1000;
		u++;
	}
	snprintf(ret, 16, u == 0 || v >= 9.95 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return ret;
}

void kb_ctl_progress_begin(struct kb_ctl_progress *p, FILE *out, bool is_terminal, const char *label, uint64_t now_ms)
{
	*p = (struct kb_ctl_progress){
		.out = out, .is_terminal = is_terminal, .label = label, .started_ms = now_ms, .tenth = -1};
}

static void draw(struct kb_ctl_progress *p, uint64_t done, uint64_t total, const char *what, uint64_t now_ms)
{
	char bar[BAR + 1], a[16], b[16], left[32] = "";
	double part = (double)done / (double)total;
	uint64_t spent_ms = now_ms - p->started_ms;
	int filled = (int)(part * BAR);
	memset(bar, '.', BAR);
	memset(bar, '#', (size_t)filled);
	bar[BAR] = 0;
	if (done > 0 && done < total && spent_ms > 2000) // before that it is a guess
		snprintf(left, sizeof left, ", %.0f s left", (double)spent_ms / 1000 * (1 - part) / part);
	// \x1b[K clears what a longer line left behind.
	fprintf(p->out, "\r%s [%s] %3.0f %%  %s of %s%s  %.24s\x1b[K", p->label, bar, part * 100, kb_ctl_bytes(done, a),
		kb_ctl_bytes(total, b), left, what ? what : "");
	fflush(p->out);
	p->is_drawn = true;
	p->drawn_ms = now_ms;
}

void kb_ctl_progress_step(struct kb_ctl_progress *p, uint64_t done, uint64_t total, const char *what, uint64_t now_ms)
{
	if (total == 0)
		return;
	if (done > total)
		done = total;
	if (p->is_terminal) {
		if (!p->is_drawn || done == total || now_ms - p->drawn_ms >= REDRAW_MS)
			draw(p, done, total, what, now_ms);
		return;
	}
	int tenth = (int)((double)done / (double)total * 10);
	if (tenth <= p->tenth)
		return;
	p->tenth = tenth;
	fprintf(p->out, "%s: %d %%\n", p->label, tenth * 10);
	fflush(p->out);
}

void kb_ctl_progress_end(struct kb_ctl_progress *p)
{
	if (p->is_drawn)
		fputc('\n', p->out);
	p->is_drawn = false;
	fflush(p->out);
}
