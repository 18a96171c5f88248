"""What `lyra bench` measures: one module a subject; every row runs in a process of its own."""
