"""From the schema's types to clean fixed arrays that a network can take. numpy only."""
