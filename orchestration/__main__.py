"""`python -m orchestration …` is `ser …`: the form that `ray job submit` can run without an installed script."""

from orchestration.cli import main

raise SystemExit(main())
