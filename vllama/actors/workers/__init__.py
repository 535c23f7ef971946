"""Worker processes as the mind sees them: tickets over a unix socket, with every law kept. design/workers.md."""
