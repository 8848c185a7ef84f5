"""Every normative statement of MQTT 3.1.1 (appendix B, with the text of the sections where that says more).

The words are ours and short; the specification's own are the law. Two identifiers that appendix B misprints,
3.1.2.7 and 3-8.3-4, are written like the others.
"""

from __future__ import annotations

from typing import Final

from tests.conformance.normative import Statement

STATEMENTS: Final[dict[str, Statement]] = {
    "MQTT-1.5.3-1": Statement(
        "both", "strings are well-formed UTF-8 without surrogates; else the connection is closed"
    ),
    "MQTT-1.5.3-2": Statement("both", "no U+0000 in a string; else the connection is closed"),
    "MQTT-1.5.3-3": Statement("both", "EF BB BF in a string is the character U+FEFF and stays in it"),
    "MQTT-2.2.2-1": Statement("both", "reserved flags have the value of the table"),
    "MQTT-2.2.2-2": Statement("both", "wrong flags close the connection"),
    "MQTT-2.3.1-1": Statement(
        "both", "SUBSCRIBE, UNSUBSCRIBE and PUBLISH above QoS 0 have a packet identifier, never 0"
    ),
    "MQTT-2.3.1-2": Statement("client", "a new packet gets a packet identifier that is not in use"),
    "MQTT-2.3.1-3": Statement(
        "client", "a packet sent again keeps its identifier, which is free after the acknowledgement"
    ),
    "MQTT-2.3.1-4": Statement(
        "server", "the server chooses the identifiers of its own PUBLISH by the same rules"
    ),
    "MQTT-2.3.1-5": Statement("both", "a PUBLISH at QoS 0 has no packet identifier"),
    "MQTT-2.3.1-6": Statement("both", "PUBACK, PUBREC and PUBREL name the identifier of their PUBLISH"),
    "MQTT-2.3.1-7": Statement("server", "SUBACK and UNSUBACK name the identifier of their request"),
    "MQTT-3.1.0-1": Statement("both", "the first packet of a client is CONNECT"),
    "MQTT-3.1.0-2": Statement("both", "a second CONNECT is a violation and ends the connection"),
    "MQTT-3.1.2-1": Statement("server", "a wrong protocol name is not processed by this specification"),
    "MQTT-3.1.2-2": Statement(
        "server", "an unknown protocol level is answered with return code 0x01 and the end"
    ),
    "MQTT-3.1.2-3": Statement("server", "CONNECT's reserved flag set ends the connection"),
    "MQTT-3.1.2-4": Statement(
        "both",
        "without clean session the session goes on, or a new one begins; it is kept after the connection",
    ),
    "MQTT-3.1.2-5": Statement("server", "QoS 1 and 2 messages for an absent client's session are stored"),
    "MQTT-3.1.2-6": Statement(
        "both", "clean session drops the old session; the new one lasts as long as its connection"
    ),
    "MQTT-3.1.2-7": Statement("server", "retained messages outlive the session"),
    "MQTT-3.1.2-8": Statement(
        "server", "the will is stored, and published when the connection closes without DISCONNECT"
    ),
    "MQTT-3.1.2-9": Statement(
        "both", "the will flag set: will topic and will message are in the payload, will QoS and retain count"
    ),
    "MQTT-3.1.2-10": Statement("server", "the will is gone once it was published or a DISCONNECT came"),
    "MQTT-3.1.2-11": Statement(
        "both", "the will flag clear: will QoS and retain are 0, no will in the payload"
    ),
    "MQTT-3.1.2-12": Statement("server", "the will flag clear: no will is published"),
    "MQTT-3.1.2-13": Statement("both", "the will flag clear: will QoS is 0"),
    "MQTT-3.1.2-14": Statement("both", "will QoS is 0, 1 or 2, never 3"),
    "MQTT-3.1.2-15": Statement("both", "the will flag clear: will retain is 0"),
    "MQTT-3.1.2-16": Statement("server", "will retain clear: the will is published as not retained"),
    "MQTT-3.1.2-17": Statement("server", "will retain set: the will is published as retained"),
    "MQTT-3.1.2-18": Statement("both", "user name flag clear: no user name in the payload"),
    "MQTT-3.1.2-19": Statement("both", "user name flag set: a user name in the payload"),
    "MQTT-3.1.2-20": Statement("both", "password flag clear: no password in the payload"),
    "MQTT-3.1.2-21": Statement("both", "password flag set: a password in the payload"),
    "MQTT-3.1.2-22": Statement("both", "no password flag without the user name flag"),
    "MQTT-3.1.2-23": Statement(
        "client", "something is sent within every keep alive interval, PINGREQ if nothing else"
    ),
    "MQTT-3.1.2-24": Statement(
        "server", "silence for one and a half times the keep alive ends the connection"
    ),
    "MQTT-3.1.3-1": Statement(
        "both",
        "CONNECT's payload: client identifier, will topic, will message, user name, password, in that order",
    ),
    "MQTT-3.1.3-2": Statement("both", "the client identifier names the session's state"),
    "MQTT-3.1.3-3": Statement("both", "the client identifier is there, as the first field of the payload"),
    "MQTT-3.1.3-4": Statement("both", "the client identifier is a UTF-8 string"),
    "MQTT-3.1.3-5": Statement("server", "client identifiers of 1 to 23 letters and digits are allowed"),
    "MQTT-3.1.3-6": Statement(
        "server", "an empty client identifier, where allowed, becomes one of the server's making"
    ),
    "MQTT-3.1.3-7": Statement("client", "an empty client identifier comes with clean session only"),
    "MQTT-3.1.3-8": Statement(
        "server", "an empty client identifier without clean session is refused with 0x02 and the end"
    ),
    "MQTT-3.1.3-9": Statement("server", "a client identifier that is refused gets 0x02 and the end"),
    "MQTT-3.1.3-10": Statement("both", "the will topic is a UTF-8 string"),
    "MQTT-3.1.3-11": Statement("both", "the user name is a UTF-8 string"),
    "MQTT-3.1.4-1": Statement(
        "server", "a CONNECT that does not conform ends the connection without a CONNACK"
    ),
    "MQTT-3.1.4-2": Statement("server", "a second client of the same identifier throws the first out"),
    "MQTT-3.1.4-3": Statement("server", "clean session is processed"),
    "MQTT-3.1.4-4": Statement("server", "a good CONNECT is answered with return code 0"),
    "MQTT-3.1.4-5": Statement("server", "after a refused CONNECT nothing more is processed"),
    "MQTT-3.2.0-1": Statement("server", "the server's first packet is CONNACK"),
    "MQTT-3.2.2-1": Statement("server", "clean session: return code 0 with session present 0"),
    "MQTT-3.2.2-2": Statement("server", "session present is 1 where there is a stored session"),
    "MQTT-3.2.2-3": Statement("server", "session present is 0 where there is none"),
    "MQTT-3.2.2-4": Statement("server", "a return code other than 0 comes with session present 0"),
    "MQTT-3.2.2-5": Statement("server", "a return code other than 0 is followed by the end"),
    "MQTT-3.2.2-6": Statement("server", "no return code that fits: the end without CONNACK"),
    "MQTT-3.3.1-1": Statement("both", "DUP is 1 when a PUBLISH is sent again"),
    "MQTT-3.3.1-2": Statement("both", "DUP is 0 at QoS 0"),
    "MQTT-3.3.1-3": Statement("server", "DUP out follows from our sending again alone, not from DUP in"),
    "MQTT-3.3.1-4": Statement("both", "QoS 3 ends the connection"),
    "MQTT-3.3.1-5": Statement("server", "a message with RETAIN is stored with its QoS for later subscribers"),
    "MQTT-3.3.1-6": Statement(
        "server", "a new subscription gets the last retained message of each topic that matches"
    ),
    "MQTT-3.3.1-7": Statement("server", "a retained message at QoS 0 takes the place of the one before"),
    "MQTT-3.3.1-8": Statement("server", "RETAIN is 1 in what a new subscription brings"),
    "MQTT-3.3.1-9": Statement("server", "RETAIN is 0 in what a subscription that stands brings"),
    "MQTT-3.3.1-10": Statement(
        "server", "an empty retained message is delivered, and removes the retained one"
    ),
    "MQTT-3.3.1-11": Statement("server", "an empty message is never stored as retained"),
    "MQTT-3.3.1-12": Statement("server", "a message without RETAIN leaves the retained one alone"),
    "MQTT-3.3.2-1": Statement("both", "the topic name is PUBLISH's first field, a UTF-8 string"),
    "MQTT-3.3.2-2": Statement("both", "no wildcards in a topic name"),
    "MQTT-3.3.2-3": Statement("server", "a delivered topic name matches the subscriber's filter"),
    "MQTT-3.3.4-1": Statement("both", "PUBLISH is answered as its QoS demands"),
    "MQTT-3.3.5-1": Statement("server", "overlapping subscriptions: delivered at the highest QoS of them"),
    "MQTT-3.3.5-2": Statement(
        "server", "a PUBLISH that is not allowed is acknowledged as usual, or the connection ends"
    ),
    "MQTT-3.6.1-1": Statement("both", "PUBREL's flags are 0010; else the connection is closed"),
    "MQTT-3.8.1-1": Statement("both", "SUBSCRIBE's flags are 0010; else the connection is closed"),
    "MQTT-3.8.3-1": Statement("both", "topic filters in SUBSCRIBE are UTF-8 strings"),
    "MQTT-3.8.3-2": Statement("server", "who does not support wildcards refuses filters with them"),
    "MQTT-3.8.3-3": Statement("both", "SUBSCRIBE has at least one filter"),
    "MQTT-3.8.3-4": Statement("server", "reserved bits or QoS 3 in SUBSCRIBE's payload close the connection"),
    "MQTT-3.8.4-1": Statement("server", "SUBSCRIBE is answered with SUBACK"),
    "MQTT-3.8.4-2": Statement("server", "SUBACK has the packet identifier of its SUBSCRIBE"),
    "MQTT-3.8.4-3": Statement(
        "server",
        "the same filter again replaces the subscription, sends retained messages again, interrupts nothing",
    ),
    "MQTT-3.8.4-4": Statement(
        "server", "several filters in a SUBSCRIBE count like several SUBSCRIBEs with one SUBACK"
    ),
    "MQTT-3.8.4-5": Statement(
        "server", "SUBACK has a return code for each filter: the QoS granted, or failure"
    ),
    "MQTT-3.8.4-6": Statement("server", "delivered at the lower of the message's QoS and the QoS granted"),
    "MQTT-3.9.3-1": Statement("server", "SUBACK's return codes are in the order of the filters"),
    "MQTT-3.9.3-2": Statement("server", "SUBACK's return codes are 0x00, 0x01, 0x02 and 0x80"),
    "MQTT-3.10.1-1": Statement("both", "UNSUBSCRIBE's flags are 0010; else the connection is closed"),
    "MQTT-3.10.3-1": Statement("both", "topic filters in UNSUBSCRIBE are UTF-8 strings"),
    "MQTT-3.10.3-2": Statement("both", "UNSUBSCRIBE has at least one filter"),
    "MQTT-3.10.4-1": Statement("server", "filters are compared byte for byte; the equal one goes"),
    "MQTT-3.10.4-2": Statement("server", "after UNSUBSCRIBE nothing new is delivered for it"),
    "MQTT-3.10.4-3": Statement("server", "what delivery had begun at QoS 1 or 2 is brought to its end"),
    "MQTT-3.10.4-4": Statement("server", "UNSUBSCRIBE is answered with UNSUBACK of its packet identifier"),
    "MQTT-3.10.4-5": Statement("server", "UNSUBACK comes also where nothing was removed"),
    "MQTT-3.10.4-6": Statement(
        "server", "several filters in an UNSUBSCRIBE count like several UNSUBSCRIBEs with one UNSUBACK"
    ),
    "MQTT-3.12.4-1": Statement("server", "PINGREQ is answered with PINGRESP"),
    "MQTT-3.14.1-1": Statement("server", "DISCONNECT's reserved bits set end the connection"),
    "MQTT-3.14.4-1": Statement("client", "DISCONNECT is followed by the client's closing"),
    "MQTT-3.14.4-2": Statement("client", "nothing is sent after DISCONNECT"),
    "MQTT-3.14.4-3": Statement("server", "DISCONNECT drops the will"),
    "MQTT-4.1.0-1": Statement("both", "session state is kept for as long as the session lasts"),
    "MQTT-4.1.0-2": Statement("both", "a session lasts at least as long as its connection"),
    "MQTT-4.3.1-1": Statement("both", "QoS 0 out: QoS 0, DUP 0"),
    "MQTT-4.3.2-1": Statement("both", "QoS 1 out: a free identifier, DUP 0, unacknowledged until PUBACK"),
    "MQTT-4.3.2-2": Statement(
        "both",
        "QoS 1 in: PUBACK of that identifier; the identifier again is a new message, whatever DUP says",
    ),
    "MQTT-4.3.3-1": Statement(
        "both", "QoS 2 out: a free identifier, DUP 0, PUBREL after PUBREC, no PUBLISH after PUBREL"
    ),
    "MQTT-4.3.3-2": Statement(
        "both",
        "QoS 2 in: PUBREC and no second delivery until PUBREL, then PUBCOMP, then the identifier is free",
    ),
    "MQTT-4.4.0-1": Statement(
        "both",
        "reconnected without clean session: unacknowledged PUBLISH and PUBREL again, identifiers as before",
    ),
    "MQTT-4.5.0-1": Statement(
        "server", "a message taken is in the session state of every client that subscribed"
    ),
    "MQTT-4.5.0-2": Statement("client", "every PUBLISH is acknowledged, wanted or not"),
    "MQTT-4.6.0-1": Statement("both", "sent again in the order of the first time"),
    "MQTT-4.6.0-2": Statement("both", "PUBACKs in the order of the PUBLISHes"),
    "MQTT-4.6.0-3": Statement("both", "PUBRECs in the order of the PUBLISHes"),
    "MQTT-4.6.0-4": Statement("both", "PUBRELs in the order of the PUBRECs"),
    "MQTT-4.6.0-5": Statement("server", "every topic is an ordered one unless somebody configured otherwise"),
    "MQTT-4.6.0-6": Statement(
        "server", "each subscriber gets one client's messages, by topic and QoS, in their order"
    ),
    "MQTT-4.7.1-1": Statement("both", "wildcards are for filters, not for topic names"),
    "MQTT-4.7.1-2": Statement("both", "# stands alone or after a /, and last"),
    "MQTT-4.7.1-3": Statement("both", "+ fills its level, at any level"),
    "MQTT-4.7.2-1": Statement(
        "server", "a filter that begins with a wildcard does not match a topic that begins with $"
    ),
    "MQTT-4.7.3-1": Statement("both", "topic names and filters have at least one character"),
    "MQTT-4.7.3-2": Statement("both", "no U+0000 in topic names and filters"),
    "MQTT-4.7.3-3": Statement("both", "topic names and filters take at most 65,535 bytes"),
    "MQTT-4.7.3-4": Statement(
        "server", "topic names and filters are matched as they are, nothing normalised or replaced"
    ),
    "MQTT-4.8.0-1": Statement("both", "a protocol violation closes the connection"),
    "MQTT-4.8.0-2": Statement("both", "a transient error with a packet closes its connection"),
    "MQTT-6.0.0-1": Statement(
        "both", "packets are in binary frames; any other kind of frame closes the connection", "WebSocket"
    ),
    "MQTT-6.0.0-2": Statement("both", "packets and frames need not end together", "WebSocket"),
    "MQTT-6.0.0-3": Statement("client", "the client offers the subprotocol mqtt", "WebSocket"),
    "MQTT-6.0.0-4": Statement("server", "the server chooses the subprotocol mqtt", "WebSocket"),
    "MQTT-7.0.0-1": Statement("server", "a server that connects to others conforms as a client too"),
    "MQTT-7.0.0-2": Statement("both", "no extension is needed to work together"),
    "MQTT-7.1.1-1": Statement("server", "a transport with an ordered, lossless stream of bytes both ways"),
    "MQTT-7.1.2-1": Statement("client", "a transport with an ordered, lossless stream of bytes both ways"),
}
