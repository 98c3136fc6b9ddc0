module github.com/secure-streams/sspolicy/runtime/tlssession/amqpfarm

go 1.26.0

require github.com/secure-streams/sspolicy v0.0.0

require github.com/rabbitmq/amqp091-go v1.16.0

replace github.com/secure-streams/sspolicy => ../../..
