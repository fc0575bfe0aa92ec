"""An external scaler for KEDA: the replicas that Trimtab's demand estimate asks for, as a metric. It acts on nothing."""
