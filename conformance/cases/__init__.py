"""The cases, one file a stage: recipe, faults, load options, and the clauses they check."""
