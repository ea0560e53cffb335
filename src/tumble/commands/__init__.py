"""Groups of commands beside those of the usual way; each module registers its own."""
