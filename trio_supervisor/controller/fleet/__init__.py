"""All workers of a controller: order, groups, planned restarts and reloads."""
