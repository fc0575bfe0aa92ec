"""A fleet of real replicas behind a gateway, for benchmarks: changed and killed while traffic goes on."""
