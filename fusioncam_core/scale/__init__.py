"""The same work on many machines, behind the extra `ray`: importing it imports no Ray."""
