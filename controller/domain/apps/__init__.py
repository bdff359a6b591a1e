"""Apps and their components: what a commit declares, what there is, and the plan that leads from one to the other."""
