"""Virtual machines: how one is started, spoken to, followed to its end, and cloned."""
