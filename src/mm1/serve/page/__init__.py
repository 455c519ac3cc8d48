"""The page that `mm1 serve` shows at `/`, and what it asks of the server besides OpenAI's API."""
