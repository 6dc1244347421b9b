"""``python -m agentflow``."""

from agentflow.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
