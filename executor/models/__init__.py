"""Model clients: any OpenAI-compatible endpoint, streamed, accounted, its errors mapped once."""
