#include "unit/op/checkop.h"
#include <stdio.h>

int bench(struct kb_backend *vk)
{
	printf("# %s\n", vk->device);
	return 0;
}
