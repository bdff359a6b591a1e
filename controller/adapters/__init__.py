"""The edge: the only importers of SDKs. Each adapter implements one port and translates its SDK's errors into ours."""
