"""agentflow: an asyncio-native engine for agentic workflows."""
