"""Forms of operations for processors; ops/ dispatches to them."""
