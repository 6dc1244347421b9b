"""The tools that come with agentflow."""
