#include "firmware/engine/trim.h"
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

static int drop_code(struct dl_phdr_info *info, size_t size, void *ctx)
{
	(void)size;
	uintptr_t page = *(uintptr_t *)ctx;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[i];
		// Never written to (relocated parts lie in writable segments), so the file has the same bytes.
		if (h->p_type != PT_LOAD || (h->p_flags & PF_W))
			continue;
		uintptr_t from = (info->dlpi_addr + h->p_vaddr) & ~(page - 1);
		uintptr_t to = (info->dlpi_addr + h->p_vaddr + h->p_memsz) & ~(page - 1);
		if (to > from)
			madvise((void *)from, to - from, MADV_DONTNEED);
	}
	return 0;
}

void kb_trim(void)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	malloc_trim(0);
	dl_iterate_phdr(drop_code, &page);
}
