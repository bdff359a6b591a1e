"""The ports of the store, which keeps all that must survive a crash; `state` has the whole, the others a noun each."""
