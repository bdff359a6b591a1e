"""Apps and their components: the declared state of a commit, the observed state, and the plan that leads from
one to the other."""
