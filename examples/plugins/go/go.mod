module group-signal

go 1.24
