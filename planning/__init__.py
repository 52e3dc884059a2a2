"""How a network is computed: what shares a kernel, in which form, with which tiles, where in memory."""
