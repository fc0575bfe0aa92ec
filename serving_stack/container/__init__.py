"""What the serving image's containers start: `trimtab-container triton|envoy|drain-triton|drain-envoy|hang|unhang|fault`."""
