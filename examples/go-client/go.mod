module lipwire-go-client

go 1.24
