"""One step of the interpreter, by subject: places in the tree, leaving and failing, tasks, maps."""
